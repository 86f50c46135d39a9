"""Dead letters: runs that failed for good, and their execution with them.

One is written when the execution fails, and goes when that is retried. A child execution has none: whether its failure
is one is its parent's business, whose node is the dead letter then.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..core import events as ev
from ..core.decide import Decision
from ..core.graph import Graph
from ..core.progress import Progress
from ..ports import DeadLetter

LONGEST = 10_000
"""Characters of an error. All of it is in the log."""


def buried(graph: Graph, decision: Decision) -> list[DeadLetter]:
    """Those that the decision leaves."""
    progress = decision.progress
    if progress.parent is not None or not any(isinstance(event, ev.WorkflowFailed) for event in decision.events):
        return []
    return list(_letters(graph, progress))


def raised(before: Progress, decision: Decision) -> list[str]:
    """Those that are run again."""
    is_retried = any(isinstance(event, ev.WorkflowRetried) for event in decision.events)
    return before.failed_runs() if is_retried else []


def _letters(graph: Graph, progress: Progress) -> Iterator[DeadLetter]:
    for run_id in progress.failed_runs():
        run = progress.run(run_id)
        error = run.error or ev.Failure("")
        yield DeadLetter(
            execution_id=progress.execution_id,
            run_id=run_id,
            queue=graph.worker_node(run_id).queue or "general",
            attempts=run.tries,
            # PostgreSQL has no NUL in a text.
            error=error.message[:LONGEST].replace("\x00", "\N{REPLACEMENT CHARACTER}"),
            error_class=error.error_class,
            failed_at=run.failed_at or progress.ended_at or 0,
            workflow_id=progress.workflow_id,
        )
