"""`offhook models`: the weights this machine needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import console

if TYPE_CHECKING:
    from engine.inference.weights import Verified, WeightStore

app = typer.Typer(help="Fetch, list and verify the models.", no_args_is_help=True)


class Profile(StrEnum):
    embedded = "embedded"
    cpu = "cpu"
    gpu = "gpu"


Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[MODEL]...", help="Else all of the profile.")
]
ForProfile = Annotated[
    Profile | None, typer.Option("--profile", help="Else the one of the settings.")
]
Progress = Callable[[str, int, int], None]


@app.command("list")
def list_models(
    context: typer.Context, profile: ForProfile = None, as_json: console.AsJson = False
) -> None:
    """Show every model: what it is for, where it is from, its licence, and whether it is here."""
    store, _ = _open(context, profile, None)
    shown = [status for status in store.list() if profile is None or profile in status.profiles]
    if as_json:
        console.print_json(
            [
                {
                    "id": status.model.id,
                    "title": status.model.title,
                    "role": status.model.role,
                    "source": status.model.source,
                    "base": status.model.base or None,
                    "licence": status.model.licence,
                    "size": status.size,
                    "state": status.state,
                    "profiles": status.profiles,
                }
                for status in shown
            ]
        )
        return
    console.print_table(
        ("model", "for", "state", "size", "source", "licence", "profiles"),
        [
            (
                status.model.id,
                status.model.role,
                status.state,
                f"{status.size / 1e6:.0f} MB" if status.size else "?",
                status.model.source,
                status.model.licence,
                " ".join(status.profiles),
            )
            for status in shown
        ],
        whole=5,
    )


@app.command()
def fetch(
    context: typer.Context,
    models: Ids = None,
    profile: ForProfile = None,
    as_json: console.AsJson = False,
) -> None:
    """Download models or make them of others, and check every byte. What is here already stays."""
    store, ids = _open(context, profile, models)
    import asyncio

    async def work(progress: Progress) -> list[Verified]:
        return [await store.fetch(model_id, progress) for model_id in ids]

    with _bars(quiet=as_json) as progress:
        done = asyncio.run(work(progress))
    _tell(done, "is here", as_json=as_json)


@app.command()
def verify(
    context: typer.Context,
    models: Ids = None,
    profile: ForProfile = None,
    as_json: console.AsJson = False,
) -> None:
    """Read every byte of the models and compare with the pinned checksums."""
    store, ids = _open(context, profile, models)
    import asyncio

    async def work(progress: Progress) -> list[Verified]:
        return [await store.verify(model_id, progress) for model_id in ids]

    with _bars(quiet=as_json) as progress:
        done = asyncio.run(work(progress))
    _tell(done, "is right", as_json=as_json)


def _open(
    context: typer.Context, profile: Profile | None, models: list[str] | None
) -> tuple[WeightStore, list[str]]:
    from engine.inference.weights import WeightStore

    if models and profile:
        raise typer.BadParameter("name models or a profile, not both", param_hint="--profile")
    settings = console.settings_of(context)
    store = WeightStore(settings.models.folder)
    if models:
        return store, [store.manifest.model(model_id).id for model_id in models]
    chosen = profile or settings.models.profile
    return store, [model.id for model in store.manifest.profile(chosen)]


@contextlib.contextmanager
def _bars(*, quiet: bool) -> Iterator[Progress]:
    """One progress bar for each file, on stderr; nothing where there is no terminal."""
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    out = console.stderr()
    with progress.Progress(*columns, console=out, disable=quiet or not out.is_terminal) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name)
            bars.update(tasks[name], completed=done, total=total or None)

        yield show


def _tell(done: list[Verified], sentence: str, *, as_json: bool) -> None:
    if as_json:
        console.print_json(
            [
                {
                    "id": item.model_id,
                    "path": str(item.path),
                    "size": item.size,
                    "sha256": item.files,
                }
                for item in done
            ]
        )
        return
    for item in done:
        typer.echo(f"{item.model_id} {sentence} ({item.size / 1e6:.0f} MB)")
