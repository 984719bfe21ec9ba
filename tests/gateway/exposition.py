"""What programs of ours tell at /metrics, read back with Prometheus' own parser."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Exposition:
    """One answer of /metrics."""

    text: str

    @classmethod
    async def of(cls, url: str) -> Exposition:
        async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics") as answer:
            assert answer.status == 200
            return cls(await answer.text())

    @property
    def names(self) -> set[str]:
        """Of all series, as queries name them."""
        return {sample.name for family in text_string_to_metric_families(self.text) for sample in family.samples}

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the series with these labels; None when there is none."""
        values = [
            sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None
