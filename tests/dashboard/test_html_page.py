"""The reader of pages, on a page."""

from __future__ import annotations

from urllib.parse import parse_qsl

from tests.dashboard.html_page import read_page

PAGE = """<!doctype html>
<html><head><title>Runs</title><script>not = "text"</script></head><body>
<p class="lead big">Two &lt;runs&gt;<br>
   are <b>here</b>.</p>
<form id="many" method="post" action="/ui/x?a=1&amp;b=2">
  <input type="hidden" name="once" value="k&quot;1"><input type="checkbox" name="id" value="a" checked>
  <input type="checkbox" name="id" value="b"><textarea name="text">
line 1
line 2</textarea>
  <select name="level"><option value="1">low<option value="2" selected>high</select>
  <button>Do it</button></form>
<button form="many" name="way" value="two">Do it otherwise</button>
<table><thead><tr><th>A</th></tr></thead><tbody><tr><td>1</td><td><a href="/ui/runs/r1">r1</a></td></tr></tbody></table>
</body></html>"""


def test_text_links_and_rows() -> None:
    page = read_page(PAGE)
    assert page.one("p", class_="lead").text == "Two <runs> are here."
    assert "not =" not in page.text
    assert page.links == [("r1", "/ui/runs/r1")]
    assert page.link("r1") == "/ui/runs/r1"
    assert page.rows == [["1", "r1"]]
    assert page.one("td", text="r1").all("a")
    assert not page.has("p", class_="le")


def test_a_form_sends_what_a_browser_would() -> None:
    form = read_page(PAGE).form("Do it")
    assert (form.method, form.action, form.buttons) == ("post", "/ui/x?a=1&b=2", ("Do it", "Do it otherwise"))
    assert parse_qsl(form.sent()) == [("once", 'k"1'), ("id", "a"), ("text", "line 1\nline 2"), ("level", "2")]
    assert parse_qsl(form.sent(id=["a", "b"], text=None)) == [
        ("once", 'k"1'), ("level", "2"), ("id", "a"), ("id", "b"),
    ]  # fmt: skip
