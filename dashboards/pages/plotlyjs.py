"""plotly.js out of the installed `plotly` wheel, so that no page asks another host for it."""

import gzip
import re
import threading
from functools import cache

from plotly.offline import get_plotlyjs, get_plotlyjs_version
from starlette.responses import Response

PATH = f"/static/plotly-{get_plotlyjs_version()}.js"
FOREVER = "public, max-age=31536000, immutable"  # another version has another path


def prepare() -> None:
    """Do what the first page would wait for: half a second of work on five megabytes."""
    threading.Thread(target=lambda: (_compressed(), bundled_styles()), daemon=True).start()


@cache
def bundled_styles() -> list[str]:
    """Ids of the style sheets that the bundle adds unless an element with that id is there.

    They are for maps, which no page draws, and the content security policy would block them with an error in the console.
    """
    return sorted(set(re.findall(r'getElementById\("([0-9a-f]{64})"\)', get_plotlyjs())))


def response(accepted_encoding: str) -> Response:
    """The bundle, compressed for every browser; the few other clients get it as it is."""
    headers = {"Cache-Control": FOREVER, "Vary": "Accept-Encoding"}
    if "gzip" not in accepted_encoding:
        return Response(gzip.decompress(_compressed()), media_type="text/javascript", headers=headers)
    return Response(_compressed(), media_type="text/javascript", headers={**headers, "Content-Encoding": "gzip"})


@cache
def _compressed() -> bytes:
    return gzip.compress(get_plotlyjs().encode(), mtime=0)
