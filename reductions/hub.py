"""The Hugging Face hub: asked once and for seconds whether it is there, where its own client would try again for minutes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_session

SECONDS = 3.0  # to wait for an answer, unless HF_HUB_ETAG_TIMEOUT says otherwise


@contextmanager
def hub() -> Iterator[str | None]:
    """Where the hub does not answer, whatever is asked of it inside comes out of its cache, or fails at once.

    Yields why nothing can be fetched; None where it can. Proxies, a mirror (HF_ENDPOINT) and HF_HUB_OFFLINE count as they do
    for the hub's own client.
    """
    if constants.HF_HUB_OFFLINE:
        yield "HF_HUB_OFFLINE is set"
        return
    reason = _unreachable()
    constants.HF_HUB_OFFLINE = reason is not None
    try:
        yield reason
    finally:
        constants.HF_HUB_OFFLINE = False


def _unreachable() -> str | None:
    patience = float(constants.HF_HUB_ETAG_TIMEOUT) if "HF_HUB_ETAG_TIMEOUT" in os.environ else SECONDS
    try:
        get_session().head(constants.ENDPOINT, timeout=patience)
    except Exception as error:  # name resolution, a proxy, a certificate: the client's errors have no common class but this
        return f"{constants.ENDPOINT} cannot be reached: {error or type(error).__name__}"
    return None
