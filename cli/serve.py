"""`vittle serve`: the dashboard with the power to launch."""

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vittle.cli.options import Storage, illustrate, open_store
from vittle.spaces.errors import VittleError

if TYPE_CHECKING:
    from vittle.dashboards.service.jobs import Jobs
    from vittle.storage.store import Store

serve_app = typer.Typer()
PANEL = "Web pages"  # of the list of commands
SHORTEST = 16  # characters of a token


@serve_app.command(rich_help_panel=PANEL)
def dashboard(
    storage: Storage = None,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port on this machine.")] = 8080,
) -> None:
    """Serve the studies as a web page on this machine."""
    store = open_store(storage)
    from vittle.dashboards.server import serve

    serve(store, port, illustrate)


@serve_app.command(rich_help_panel=PANEL)
def serve(
    storage: Storage = None,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address to listen at; another than loopback takes the token for reading, too."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port to listen on.")] = 8080,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name that browsers call it by behind a proxy; reading takes the token, too.",
            show_default=False,
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address or network of a proxy that says who asks (X-Forwarded-For, -Proto). Default: none.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="YAML file with the models, data and limits. Default: the digits.", show_default=False
        ),
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Job server of a Ray cluster, http://head:8265. Default: processes here.", show_default=False
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File that holds the token. Default: VITTLE_TOKEN, or a new one.", show_default=False
        ),
    ] = None,
    token: Annotated[str | None, typer.Option(envvar="VITTLE_TOKEN", hidden=True)] = None,
) -> None:
    """Serve the studies as a web page and a REST service that launches, stops and extends searches."""
    from vittle.dashboards.service.catalog import Catalog

    catalog = Catalog.load(config)
    given = _read(token_file) if token_file is not None else token
    if given is not None and len(given) < SHORTEST:
        raise VittleError(f"the token is too short; accepted: {SHORTEST} characters or more, in VITTLE_TOKEN or --token-file")
    from vittle.dashboards.security.sessions import Access
    from vittle.dashboards.server import is_loopback, names, networks
    from vittle.dashboards.server import serve as serve_forever
    from vittle.dashboards.service.service import Service

    proxies = networks(trusted_proxy or [])
    store = open_store(storage, create=True)

    public = bool(host_name) or not is_loopback(host)
    made = given or secrets.token_urlsafe(32)
    access = Access(made, public=public)
    service = Service(store, _place(jobs, store), catalog, access, [*names(host), *(host_name or [])])

    def started(address: str) -> None:
        print(f"Vittle on {address} (Ctrl-C ends it; searches go on)")
        if given is None:
            print(f"Token, for signing in and for programs: {made}")
        sys.stdout.flush()

    serve_forever(store, port, illustrate, host, service, proxies, started)


def _place(address: str | None, store: "Store") -> "Jobs":
    if address is None:
        from vittle.dashboards.service.jobs import LocalJobs

        return LocalJobs(store.url)
    from vittle.cli.ray_jobs import RayJobs

    return RayJobs(address, store)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise VittleError(f"cannot read {path}: {reason}; give --token-file a file that holds a token") from None
