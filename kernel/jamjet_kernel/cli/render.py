"""Answers of the runtime as tables for people."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.json import JSON
from rich.table import Column, Table
from rich.text import Text

from .output import answers
from .timeline import Event, Row, Timeline, described, duration, instant

Json = Mapping[str, Any]

_STYLES = {
    "completed": "green",
    "active": "green",
    "deactivated": "dim",
    "running": "cyan",
    "pending": "dim",
    "skipped": "dim",
    "waiting": "yellow",
    "paused": "yellow",
    "parked": "yellow",
    "retrying": "magenta",
    "failed": "bold red",
    "cancelled": "red",
}
_MARKS = {
    "completed": "✓",
    "active": "●",
    "deactivated": "–",
    "running": "●",
    "pending": "·",
    "skipped": "–",
    "waiting": "◷",
    "paused": "◷",
    "parked": "◷",
    "retrying": "↻",
    "failed": "✗",
    "cancelled": "✗",
}


def status(word: str) -> Text:
    return Text(f"{_MARKS.get(word, '·')} {word}", style=_STYLES.get(word, ""))


def audit(answer: Json) -> RenderableType:
    if not answer["items"]:
        return nothing("no records")
    table = _table("when", "who", "what", "on", "execution", "told", unbroken=("when", "what", "execution"))
    for one in answer["items"]:
        table.add_row(
            moment(one["created_at"]),
            one["actor_id"],
            one["event_type"],
            one["resource"] or "",
            one["execution_id"] or "",
            ", ".join(f"{name}: {value}" for name, value in (one["data"] or {}).items()),
        )
    return _fitting(table, "told", "on", "execution")


def audit_verification(answer: Json) -> RenderableType:
    head = answer["head"]
    if answer["valid"]:
        return Text.assemble(
            ("✓ ", "green"), f"{answer['records']} records, untouched; head {head['sequence']}:{head['digest']}"
        )
    table = _table("record", "problem", "")
    for problem in answer["problems"]:
        table.add_row(str(problem["sequence"]), problem["kind"], problem["message"])
    count = answer["problem_count"]
    return Group(Text(f"✗ {count} problems in {answer['records']} records", style="bold red"), table)


def database_status(answer: Json) -> RenderableType:
    version, latest = answer["version"], answer["latest"]
    told = {
        "empty": "holds no runtime yet",
        "current": f"has the schema version {version}, which is this runtime's",
        "old": f"has the schema version {version}, this runtime's is {latest}: `jamjet db upgrade` brings it there",
        "newer": f"has the schema version {version}, made by a newer runtime; this one knows versions up to {latest}",
    }
    return Text(f"{answer['database']} {told[answer['state']]}")


def database_upgrade(answer: Json) -> RenderableType:
    database, before, after = answer["database"], answer["from"], answer["to"]
    if before == after:
        return Text(f"{database} has the schema version {after} already; nothing to do")
    if before is None:
        return Text.assemble(("✓ ", "green"), f"made the tables of {database}: schema version {after}")
    return Text.assemble(("✓ ", "green"), f"upgraded {database} from schema version {before} to {after}")


def database_copy(answer: Json) -> RenderableType:
    table = _table("table", "rows", "sha256", unbroken=("table", "rows", "sha256"))
    table.columns[1].justify = "right"
    for one in answer["tables"]:
        table.add_row(one["table"], f"{one['rows']:,}", one["sha256"][:16] if one["rows"] else "")
    told = f"{answer['rows']:,} rows from {answer['source']} are in {answer['target']}; both sides agree"
    return Group(table, Text.assemble(("✓ ", "green"), told), *_left_behind(answer["home"]))


def _left_behind(home: Json) -> list[Text]:
    if not home["files"]:
        return []
    files, source, target = " and ".join(home["files"]), home["source"], home["target"]
    todo = "keep them there" if source == target else "take them along"
    lines = [f"Not in the database: {files} in {source}. A runtime on the copy looks in {target}: {todo}."]
    if "signing.key" in home["files"]:
        lines.append("The audit log is signed with signing.key: with another one it does not verify.")
    return [Text(line, style="dim") for line in lines]


def executions(answer: Json) -> RenderableType:
    found = answer["executions"]
    if not found:
        return nothing("no executions")
    table = _table("execution", "workflow", "status", "created", "took", unbroken=("execution",))
    for one in found:
        table.add_row(
            one["execution_id"],
            one["workflow_id"],
            status(one["status"]),
            moment(one["created_at"]),
            _between(one["created_at"], one.get("completed_at")),
        )
    return _fitting(table, "took", "created", "workflow", "status")


def execution(answer: Json, told: Timeline, events: Iterable[Event]) -> RenderableType:
    """Everything about one: its fields, its state, its nodes, its log."""
    return Group(
        fields(answer),
        heading("state"),
        JSON.from_data(answer.get("state"), ensure_ascii=False),
        heading("nodes"),
        nodes(told),
        heading("events"),
        log(events),
    )


def fields(answer: Json) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in answer.items():
        if name not in ("state", "nodes") and value not in (None, {}, []):
            grid.add_row(name.replace("_", " "), _field(name, value))
    return grid


def _field(name: str, value: Any) -> RenderableType:
    if name == "status":
        return status(str(value))
    if name == "error":
        return Text(error_message(value), style="red")
    if name.endswith("_at") and isinstance(value, str):
        return moment(value)
    return JSON.from_data(value, indent=None) if isinstance(value, dict | list) else Text(str(value))


def error_message(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, Mapping) else error or "")


def nodes(told: Timeline) -> RenderableType:
    if not told.rows:
        return nothing("no node has run")
    table = _table("node", "status", "attempts", "took", "")
    table.columns[2].justify = table.columns[3].justify = "right"
    for row in told.rows.values():
        table.add_row(*node_cells(row))
    return table


def node_cells(row: Row) -> tuple[Text, Text, Text, Text, Text]:
    return (
        Text(row.node_id, style=_STYLES["pending"] if row.status in ("pending", "skipped") else ""),
        status(row.status),
        Text(str(row.attempts or "")),
        Text(duration(row.duration_ms)),
        Text(_note(row), style=_STYLES.get(row.status, "dim") if row.note else "dim"),
    )


def _note(row: Row) -> str:
    count = f"{row.done}/{row.total}" if row.total is not None else ""
    rounds = f"round {row.rounds}" if row.rounds > 1 else ""
    return "  ".join(filter(None, (count, rounds, row.note)))


def log(events: Iterable[Event]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(style="dim", overflow="fold")
    for event in events:
        table.add_row(*event_cells(event))
    return table


def event_cells(event: Event) -> tuple[str, str, Text, str, str]:
    at = f"{instant(event['created_at']):%H:%M:%S.%f}"[:-3]
    kind = Text(event["kind"], style=_style_of_kind(event["kind"]))
    return str(event["sequence"]), at, kind, event.get("node_id") or "", described(event)


def event_line(event: Event) -> Text:
    """One event as it comes; columns of fixed width, so that lines stand below one another."""
    sequence, at, kind, node_id, detail = event_cells(event)
    kind.pad_right(max(0, 21 - len(kind)))
    line = Text.assemble(
        (f"{sequence:>5}  {at}  ", "dim"), kind, "  ", (f"{node_id:<16}", "bold"), "  ", (detail, "dim")
    )
    line.rstrip()
    return line


def _style_of_kind(kind: str) -> str:
    for part, style in (("Failed", "red"), ("Cancelled", "red"), ("Retr", "magenta"), ("Completed", "green")):
        if part in kind:
            return style
    waits = ("Approval", "Paused", "Parked", "WaitStarted", "Exceeded", "Violation")
    return "yellow" if any(part in kind for part in waits) else "cyan"


def approvals(answer: Json) -> RenderableType:
    if not answer["approvals"]:
        return nothing("nothing waits for a person")
    table = _table("execution", "node", "workflow", "since", "expires", "what is asked", unbroken=("execution",))
    for one in answer["approvals"]:
        table.add_row(
            one["execution_id"],
            one["node_id"],
            one.get("workflow_id") or "",
            moment(one.get("requested_at")),
            moment(one.get("expires_at")),
            one.get("description") or one.get("tool") or "",
        )
    return _fitting(table, "since", "workflow", "expires")


def dead_letters(answer: Json) -> RenderableType:
    if not answer["dead_letters"]:
        return nothing("no dead letters")
    table = _table("dead letter", "node", "workflow", "queue", "attempts", "failed", "error", unbroken=("dead letter",))
    for one in answer["dead_letters"]:
        table.add_row(
            one["id"],
            one["node_id"],
            one["workflow_id"],
            one["queue_type"],
            str(one["attempts"]),
            moment(one["failed_at"]),
            one["error"].partition("\n")[0],
        )
    return _fitting(table, "attempts", "failed", "queue", "workflow", "error")


def agents(answer: Json) -> RenderableType:
    if not answer["agents"]:
        return nothing("no agents")
    table = _table("agent", "name", "status", "skills", "protocols", "uri", "last seen", unbroken=("agent",))
    for one in answer["agents"]:
        table.add_row(
            one["agent_id"],
            one["name"],
            status(one["status"]),
            ", ".join(one["skills"]),
            ", ".join(one["protocols"]),
            one["uri"],
            _last_seen(one),
        )
    return _fitting(table, "protocols", "last seen", "uri", "skills", "name")


def agent(answer: Json) -> RenderableType:
    """Everything about one: its fields, its card."""
    told = {name: value for name, value in answer.items() if name != "card"}
    return Group(fields(told), heading("card"), JSON.from_data(answer["card"], ensure_ascii=False))


def _last_seen(agent: Json) -> Text:
    when = moment(agent.get("last_seen_at"))
    return Text(f"{when} (unreachable)", style="red") if agent.get("reachable") is False else Text(when)


def workflows(answer: Json) -> RenderableType:
    if not answer["workflows"]:
        return nothing("no workflows")
    table = _table("workflow", "version", "registered")
    for one in answer["workflows"]:
        version = one.get("latest_version") or one.get("version") or ""
        table.add_row(one["workflow_id"], version, moment(one.get("created_at")))
    return table


def versions(answer: Json) -> RenderableType:
    table = _table("version", "registered")
    for one in answer["versions"]:
        table.add_row(one["version"], moment(one.get("created_at")))
    return table


def workers(answer: Json) -> RenderableType:
    if not answer["workers"]:
        return nothing("no workers")
    table = _table(
        "worker", "host", "pid", "version", "queues", "running", "started", "last seen", unbroken=("worker",)
    )
    for one in answer["workers"]:
        table.add_row(
            one["worker_id"],
            str(one.get("host") or ""),
            str(one.get("pid") or ""),
            str(one.get("version") or ""),
            ", ".join(one.get("queues") or ()),
            str(one.get("running", "")),
            moment(one.get("started_at")),
            moment(one.get("last_seen")),
        )
    return _fitting(table, "started", "version", "pid", "queues", "host")


def plugins(found: Sequence[Json]) -> RenderableType:
    if not found:
        return nothing("no plugins are installed")
    table = _table("plugin", "module", "distribution", "hooks")
    for one in found:
        hooks = Text(", ".join(one["hooks"])) if not one["error"] else Text(one["error"], style="red")
        origin = " ".join(filter(None, (one["distribution"], one["version"])))
        table.add_row(Text(one["name"], style="bold"), one["module"], origin, hooks)
    return table


def tokens(answer: Json) -> RenderableType:
    if not answer["tokens"]:
        return nothing("no tokens")
    table = _table("token", "name", "role", "state", "created", "by", "expires", "last used", unbroken=("token",))
    for one in answer["tokens"]:
        table.add_row(
            one["token_id"],
            one["name"],
            one["role"],
            _token_state(one),
            moment(one["created_at"]),
            one["created_by"],
            moment(one["expires_at"]),
            moment(one["last_used_at"]),
        )
    return _fitting(table, "last used", "by", "created", "expires", "state")


def _token_state(token: Json) -> Text:
    if token["revoked_at"]:
        return Text("revoked", style="red")
    if token["expires_at"] and instant(token["expires_at"]) <= datetime.now(UTC):
        return Text("expired", style="dim")
    return Text("good", style="green")


def new_token(answer: Json) -> RenderableType:
    grid = fields({name: value for name, value in answer.items() if name != "token"})
    return Group(grid, Text("\nIts plain text, shown this once:", style="bold"), whole(answer["token"]))


def heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def nothing(text: str) -> Text:
    return Text(text, style="dim")


def whole(identifier: str) -> Text:
    """An id is there to be copied: it is neither cut nor broken."""
    return Text(identifier, no_wrap=True, overflow="ignore")


def moment(text: str | None) -> str:
    return f"{instant(text):%Y-%m-%d %H:%M:%S}" if text else ""


def _between(begin: str, end: str | None) -> str:
    return duration((instant(end) - instant(begin)).total_seconds() * 1000) if end else ""


def _table(*columns: str, unbroken: Collection[str] = ()) -> Table:
    """Ids are there to be copied: what is unbroken is neither cut nor folded."""
    table = _plain_table()
    for column in columns:
        header = column if answers.is_terminal else column.upper()
        table.add_column(header, overflow="fold", no_wrap=column in unbroken)
    return table


def _plain_table(*columns: Column) -> Table:
    return Table(*columns, box=None, pad_edge=False, header_style="bold dim", padding=(0, _GAP, 0, 0))


def _fitting(table: Table, *spare: str) -> Table:
    """Without the spare columns, in this order, as long as the terminal is too narrow."""
    columns = table.columns
    for column in columns:
        column.min_width = _widest(column) if column.no_wrap else cell_len(str(column.header))
    for name in spare:
        if sum(map(_wanted, columns)) > answers.width:
            columns = [column for column in columns if column.header != name]
    fitting = _plain_table(*columns)
    fitting.rows = table.rows
    return fitting


def _wanted(column: Column) -> int:
    return (_widest(column) if column.no_wrap else min(_widest(column), _READABLE)) + _GAP


def _widest(column: Column) -> int:
    return max(cell_len(str(cell)) for cell in (column.header, *column.cells))


_GAP = 2
_READABLE = 30
"""What a long text gets before it is broken into lines."""
