"""`offhook db`."""

from __future__ import annotations

import typer

from engine.cli import console

app = typer.Typer(help="Upgrade and check the database.", no_args_is_help=True)


@app.command()
def upgrade(context: typer.Context) -> None:
    """Bring the schema up to date. `offhook serve` does it as well."""
    import asyncio

    from engine.storage import db

    url = console.settings_of(context).database_url
    asyncio.run(db.upgrade(url))
    typer.echo(f"the database has schema {asyncio.run(db.schema_state(url)).current}")


@app.command()
def check(context: typer.Context, as_json: console.AsJson = False) -> None:
    """Say which schema the database has and whether its file is sound. Status 1 when it is not right."""
    import asyncio

    from engine.storage import db

    state = asyncio.run(db.schema_state(console.settings_of(context).database_url))
    if as_json:
        console.print_json(
            {
                "current": state.current,
                "head": state.head,
                "up_to_date": state.up_to_date,
                "problems": state.problems,
            }
        )
    else:
        typer.echo(f"schema {state.current or 'none'}, this version wants {state.head}")
        for problem in state.problems:
            typer.echo(f"damaged: {problem}")
        if not state.up_to_date:
            typer.echo("run `offhook db upgrade`")
    if state.problems or not state.up_to_date:
        raise typer.Exit(1)
