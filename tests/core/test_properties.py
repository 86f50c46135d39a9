"""What holds for any workflow and any order of facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from jamjet_kernel.core import events as ev
from jamjet_kernel.core.graph import Graph, parse
from jamjet_kernel.core.progress import Progress, evolve
from jamjet_kernel.errors import Invalid, JamJetError

from .conftest import KINDS, Play, ir

EXAMPLES = settings(max_examples=150, suppress_health_check=list(HealthCheck))

CONDITIONS = ["state.x > 1", "state.x is none or state.x < 3", "output.ok", "state.error is defined", "true", "false"]


class Sketch:
    """Nodes and edges of a random workflow, as they come."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw = draw
        self.nodes: dict[str, Any] = {}
        self.edges: list[str] = []

    def node(self, **kind: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes[name] = kind
        return name

    def condition(self) -> str:
        return str(self.draw(st.sampled_from(CONDITIONS)))

    def chance(self, percent: int = 50) -> bool:
        return bool(self.draw(st.integers(0, 99)) >= 100 - percent)

    def block(self, depth: int) -> tuple[str, str]:
        """The first and the last node of a part."""
        leaves = [self.work, self.work, self.map, self.approval, self.wait, self.subgraph, self.guarded]
        parts = [self.sequence, self.branches, self.parallel, self.loop, self.alternatives]
        shape: Callable[[int], tuple[str, str]] = self.draw(st.sampled_from(leaves + parts * 2 if depth else leaves))
        return shape(depth - 1)

    def work(self, _: int) -> tuple[str, str]:
        policy = self.draw(st.sampled_from(["no_retry", "fast", "io_default"]))
        timeout = self.draw(st.sampled_from([None, 7]))
        name = self.node(type="work", retry_policy=policy, node_timeout_secs=timeout)
        return name, name

    def guarded(self, _: int) -> tuple[str, str]:
        tool = self.draw(st.sampled_from(["pay", "pay", "forbidden", "free"]))
        name = self.node(type="tool", tool_ref=tool)
        return name, name

    def map(self, _: int) -> tuple[str, str]:
        body = self.draw(
            st.sampled_from(
                [
                    {"type": "work", "retry_policy": "fast", "node_timeout_secs": 7},
                    {"type": "tool", "tool_ref": "pay"},
                    {"type": "subgraph", "workflow_ref": "sub", "input_mapping": {"i": "{{ item }}"}},
                ]
            )
        )
        items = self.draw(st.sampled_from(["[]", "[1]", "[1, 2, 3]", "state.xs", "3"]))
        limit = self.draw(st.sampled_from([None, 1, 2]))
        name = self.node(type="map", items=items, max_concurrency=limit, body=body)
        return name, name

    def approval(self, _: int) -> tuple[str, str]:
        name = self.node(type="human_approval", timeout_secs=self.draw(st.sampled_from([None, 5])))
        return name, name

    def wait(self, _: int) -> tuple[str, str]:
        kind = self.draw(st.sampled_from(["timer", "external_event", "either"]))
        more = {"correlation_key": self.draw(st.sampled_from(["k1", "k2"]))} if kind != "timer" else {}
        more |= {"duration": 3} if kind != "external_event" else {}
        name = self.node(type="wait", condition=kind, timeout_secs=self.draw(st.sampled_from([None, 9])), **more)
        return name, name

    def subgraph(self, _: int) -> tuple[str, str]:
        name = self.node(type="subgraph", workflow_ref="sub")
        return name, name

    def sequence(self, depth: int) -> tuple[str, str]:
        first, middle = self.block(depth)
        begin, last = self.block(depth)
        self.edges.append(f"{middle} > {begin}" + (f" if {self.condition()}" if self.chance(20) else ""))
        return first, last

    def alternatives(self, depth: int) -> tuple[str, str]:
        """A node with conditional edges, and perhaps an error route."""
        first, _ = self.work(0)
        last, _ = self.work(0)
        for _ in range(self.draw(st.integers(1, 3))):
            begin, end = self.block(depth)
            self.edges.append(f"{first} > {begin} if {self.condition()}")
            self.edges.append(f"{end} > {last}")
        if self.chance():
            self.edges.append(f"{first} > {last}")
        if self.chance():
            self.nodes[first]["on_error"] = last
        return first, last

    def branches(self, depth: int) -> tuple[str, str]:
        last, _ = self.work(0)
        targets = []
        for _ in range(self.draw(st.integers(1, 3))):
            begin, end = self.block(depth)
            self.edges.append(f"{end} > {last}")
            targets.append({"condition": self.condition(), "target": begin})
        if self.chance(80):
            targets.append({"target": last})
        return self.node(type="condition", branches=targets), last

    def parallel(self, depth: int) -> tuple[str, str]:
        strategy = self.draw(st.sampled_from(["collect", "merge", "first", "first"]))
        parts = [self.block(depth) for _ in range(self.draw(st.integers(1, 3)))]
        join = self.node(type="join", wait_for=[end for _, end in parts], merge_strategy=strategy)
        return self.node(type="parallel", branches=[begin for begin, _ in parts], join=join), join

    def loop(self, depth: int) -> tuple[str, str]:
        first, middle = self.block(depth)
        last, _ = self.work(0)
        branches = [{"condition": self.condition(), "target": first}, {"target": last}]
        check = self.node(type="condition", branches=branches)
        self.edges.append(f"{middle} > {check}")
        return first, last


@st.composite
def structured(draw: Any) -> dict[str, Any]:
    """A workflow made of nested parts."""
    sketch = Sketch(draw)
    first, last = sketch.block(3)
    if sketch.chance(30):
        sketch.node(type="finalizer", run_on=draw(st.sampled_from(["success", "failure", "always"])), body=WORK_BODY)
    more: dict[str, Any] = {}
    if sketch.chance(20):
        more["on_budget_exceeded"] = draw(st.sampled_from(["end", last, "saver"]))
        if more["on_budget_exceeded"] == "saver":
            sketch.nodes["saver"] = {"type": "work"}
            sketch.edges.append(f"saver > {last}")
    return definition(draw, sketch, start_node=first, **more)


@st.composite
def tangled(draw: Any) -> dict[str, Any]:
    """Any nodes and any edges between them that are a workflow at all."""
    sketch = Sketch(draw)
    for _ in range(draw(st.integers(2, 6))):
        draw(st.sampled_from([sketch.work, sketch.work, sketch.approval, sketch.wait, sketch.map]))(0)
    names = list(sketch.nodes)
    for name in names:
        if sketch.chance(20):
            sketch.nodes[name] = {"type": "join", "merge_strategy": draw(st.sampled_from(["first", "collect"]))}
        elif sketch.nodes[name]["type"] == "work" and sketch.chance(20):
            sketch.nodes[name]["on_error"] = draw(st.sampled_from(names))
    for source, target in pairwise(names):
        sketch.edges.append(f"{source} > {target}" + (f" if {sketch.condition()}" if sketch.chance(30) else ""))
    for _ in range(draw(st.integers(0, 6))):
        source, target = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        sketch.edges.append(f"{source} > {target}" + (f" if {sketch.condition()}" if sketch.chance(60) else ""))
    return definition(draw, sketch, start_node=names[0])


WORK_BODY = {"type": "work"}


def definition(draw: Any, sketch: Sketch, **more: Any) -> dict[str, Any]:
    budget = draw(st.sampled_from([None, None, {"total_tokens": 60}]))
    timeout = draw(st.sampled_from([None, None, 100]))
    policy = {"require_approval_for": ["pay"], "blocked_tools": ["forbid*"]}
    return ir(
        sketch.nodes,
        *sketch.edges,
        max_iterations=draw(st.integers(1, 4)),
        token_budget=budget,
        timeouts={"workflow_timeout": timeout},
        policy=policy,
        continue_as_new=draw(st.sampled_from([None, 10])),
        **more,
    )


def parsed(ir: dict[str, Any]) -> Graph:
    try:
        return parse(ir, KINDS)
    except Invalid:
        assume(False)
        raise


graphs = (structured() | tangled()).map(parsed)
inputs = st.sampled_from([{}, {"x": 0, "xs": [1, 2]}, {"x": 2, "xs": []}, {"x": 5, "xs": 4}])
outputs = st.sampled_from(
    [None, 1, [1], {"x": 0}, {"x": 2, "ok": True}, {"x": 9, "ok": False}, {"x": None}, {"xs": [1, 2]}]
)


def facts(play: Play, draw: Any) -> Iterator[ev.Event]:
    """One thing that may happen next: most fit, some come late, twice or to the wrong place."""
    run_ids = [*play.progress.nodes, "nobody", "n0[9]"]
    run_id = draw(st.sampled_from(play.open_work if play.work and draw(st.integers(0, 9)) else run_ids))
    run = play.progress.run(run_id)
    attempt = run.attempt + draw(st.sampled_from([0] * 9 + [-1, 1]))
    iteration = run.iteration + draw(st.sampled_from([0] * 9 + [-1, 1]))
    error = ev.Failure("boom", draw(st.sampled_from(["custom", "timeout"])))
    usage = ev.Usage(input_tokens=10, output_tokens=10) if draw(st.booleans()) else None
    it: dict[str, Any] = {"at": 0, "node_id": run_id, "attempt": attempt, "iteration": iteration}
    match draw(st.sampled_from("cccccccffposstttaaarreeexxyuuvhhhmmq+")):
        case "c":
            yield ev.NodeCompleted(**it, output=draw(outputs), usage=usage)
        case "f":
            yield ev.NodeFailed(**it, error=error, retryable=draw(st.booleans()), jitter=0.5)
        case "p":
            yield ev.NodeParked(**it, until=play.at + 50, reason="limit")
        case "o":
            yield ev.NodeHeld(**it)
        case "s":
            yield ev.NodeStarted(at=0, node_id=run_id, attempt=attempt, worker_id="w")
        case "t" if play.timers:
            timer_id = draw(st.sampled_from(sorted(play.timers)))
            late = draw(st.sampled_from([0, 0, 0, 1]))
            yield ev.TimerFired(at=0, timer_id=timer_id, fire_at=play.timers[timer_id] - late)
        case "a" | "r" as decision:
            node_id = draw(st.sampled_from([None, *sorted(play.approvals), run_id]))
            patch = draw(st.sampled_from([None, {"x": 3}]))
            word = "approved" if decision == "a" else "rejected"
            yield ev.ApprovalReceived(at=0, node_id=node_id, decision=word, state_patch=patch)
        case "e":
            yield ev.ExternalEventReceived(at=0, correlation_key=draw(st.sampled_from(["k1", "k2"])), payload={"x": 2})
        case "x" | "y" as outcome:
            child = draw(st.sampled_from([*sorted(play.children), "other"]))
            owner = play.children[child].node_id if child in play.children else run_id
            if outcome == "x":
                yield ev.ChildWorkflowCompleted(at=0, node_id=owner, child_execution_id=child, output=draw(outputs))
            else:
                yield ev.ChildWorkflowFailed(at=0, node_id=owner, child_execution_id=child, error=error)
        case "u" | "v" as news:
            child = draw(st.sampled_from([*sorted(play.children), "other"]))
            owner = play.children[child].node_id if child in play.children else run_id
            told = ev.ChildWorkflowPaused if news == "u" else ev.ChildWorkflowResumed
            yield told(at=0, node_id=owner, child_execution_id=child)
        case "h":
            requested = ev.WorkflowResumed if play.progress.held else ev.WorkflowPaused
            yield requested(at=0, reason="requested")
        case "m":
            yield ev.WorkflowRetried(at=0)
        case "q" if draw(st.integers(0, 3)) == 0:
            yield ev.WorkflowCancelled(at=0)
        case "+":
            yield draw(st.sampled_from(play.log))


def happen(play: Play, event: ev.Event) -> None:
    before, length = play.progress, len(play.log)
    try:
        play.record(event)
    except JamJetError:
        assert play.progress is before
        assert len(play.log) == length


def finish(play: Play) -> None:
    """Everything that is open goes well, in the order of the names."""
    if play.progress.held:
        play.resume()
    for _ in range(2000):
        if play.progress.is_terminal:
            return
        succeed(play)
    raise AssertionError(f"never ends: {play.statuses()}")


def succeed(play: Play) -> None:
    if play.work:
        run_id = play.open_work[0]
        play.complete(run_id, {"x": play.progress.run(run_id).iteration, "ok": True})
    elif play.children:
        play.child_completes(min(str(started.node_id) for started in play.children.values()), {"x": 1})
    elif play.approvals:
        play.approve(min(play.approvals))
    elif waits := sorted(run.correlation_key for run in play.progress.nodes.values() if run.correlation_key):
        play.tell(waits[0], {"x": 1})
    else:
        play.fire(min(timer_id for timer_id in play.timers if timer_id != "/timeout"))


@EXAMPLES
@given(graphs, inputs, st.data())
def test_any_facts_in_any_order_leave_an_execution_whole_and_able_to_end(
    graph: Graph, given_input: dict[str, Any], data: st.DataObject
) -> None:
    parent = data.draw(st.sampled_from([None, ev.Parent("above", "s")]))
    play = Play(graph).start(given_input, parent=parent)
    for _ in range(data.draw(st.integers(0, 40))):
        for event in facts(play, data.draw):
            happen(play, event)

    finish(play)

    check_log(play)


def check_log(play: Play) -> None:
    results: dict[tuple[str, int], ev.Event] = {}
    ended = False
    for event in play.log:
        assert not ended or isinstance(event, ev.WorkflowRetried), "something follows the end"
        ended = isinstance(event, ev.WorkflowCompleted | ev.WorkflowFailed | ev.WorkflowCancelled)
    iterations: dict[str, int] = {}
    progress = Progress()
    for event in play.log:
        if isinstance(event, ev.NodeCompleted):
            run_id = str(event.node_id)
            key = (run_id, progress.run(run_id).iteration)
            assert key not in results, f"{key} has two results"
            results[key] = event
        if isinstance(event, ev.WorkflowRetried):  # its finalizers run again as well
            results = {key: result for key, result in results.items() if key[0] not in event.nodes}
        if isinstance(event, ev.IterationStarted):
            assert event.iteration > iterations.get(str(event.node_id), -1)
            iterations[str(event.node_id)] = event.iteration
        progress = evolve(progress, event)
    assert progress == play.progress
