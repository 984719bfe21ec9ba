"""The dashboard: pages that the gateway draws, for people with a browser. Below `/ui`, on the gateway's own port.

Every page is whole without JavaScript; one small module (`static/dashboard.js`) keeps it live. Nothing is loaded from
anywhere else. What a page shows and lets its reader do follows the same grants as the HTTP API (`Sight`).
"""
