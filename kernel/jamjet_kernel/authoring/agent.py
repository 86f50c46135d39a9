"""An agent file: a goal, some tools and a strategy, compiled to a graph.

Every strategy is made of the same pieces: a model node that thinks, one node per tool, and conditions that
lead back or on. A model answers objects (`output_schema`), so that conditions can ask for their fields:

    react             think ⇄ tools; think answers when it is done
    plan-and-execute  plan → execute ⇄ tools, until no step is left → verify → finish, or plan again
    critic            draft ⇄ tools → critique by another model → end, or draft again
    reflection        the same, the model being its own critic
    consensus         several drafts in parallel → judge
    debate            rounds of for and against → judge

What a model wants to remember between two calls it writes into its `notes`. The answer ends up in `answer`.
Where a model node has no output key, its object is merged into the state: `answer`, `notes`, `tool` stand there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from .compiler import Compiler, Fields
from .nodes import Tree
from .problems import did_you_mean
from .source import Written, plain
from .workflow import compile_header, report_unknown, take_budgets

_FINISH = "finish"
"""A tool of this name is how people let an agent say that it is done; no node stands behind it."""


def compile_agent(compiler: Compiler, written: Written) -> Written:
    top = compiler.fields(written)
    agent = top.pop("agent")
    fields = compiler.fields(agent)
    plan = _Plan(compiler, agent, fields)
    fields.setdefault("version", top.pop("version", agent.saying("0.1.0")))
    limits = fields.pop("limits", None)
    for name in fields.keys() & top.keys():
        compiler.problem(fields[name], f"stands at the top of the file as well, on line {top[name].line}")
    header = {**top, **fields, "tools": agent.saying(plan.definitions(top.get("tools")))}
    ir = compile_header(compiler, agent, header)
    if limits is not None:
        take_budgets(compiler, ir, limits.saying(_without_own_bounds(compiler, limits)))
    report_unknown(compiler, header, AGENT)
    plan.compile()
    return written.saying({**ir, "start_node": plan.start, "nodes": plan.nodes, "edges": plan.edges})


def _without_own_bounds(compiler: Compiler, limits: Written) -> Fields:
    """Revisions, reflections and new plans are all rounds of a loop."""
    fields = compiler.fields(limits)
    for name in ("max_revisions", "max_reflections", "max_replans"):
        if name in fields:
            fields.setdefault("max_iterations", fields.pop(name))
            fields.pop(name, None)
    return fields


@dataclass
class _Plan:
    """The graph while it grows. What is generated stands where the strategy does."""

    compiler: Compiler
    agent: Written
    fields: Fields
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[Any] = field(default_factory=list)
    start: Any = None

    def __post_init__(self) -> None:
        take = self.fields.pop
        self.strategy = self.fields.pop("strategy", self.agent.saying("react"))
        self.config = self.compiler.fields(take("strategy_config", None))
        self.model = take("model", None)
        self.goal = self._goal(take("goal", None))
        self.tools = self.compiler.by_name(self._named_tools(take("tools", None)))
        self.verifier = self._helper("verifier")
        self.judge = self._helper("judge")
        self.count = self._number("agents", 3)
        self.rounds = self._number("rounds", 2)
        self.system = next((take(name) for name in _SYSTEM if name in self.fields), None)
        self.tuning = {name: take(name) for name in ("temperature", "max_tokens") if name in self.fields}
        self._take_limit_rule()
        for name, value in self.config.items():
            hint = did_you_mean(name, _CONFIG) or f"; known are: {', '.join(sorted(_CONFIG))}"
            self.compiler.problem(value, f"unknown field{hint}")

    def compile(self) -> None:
        name = self.strategy.value.replace("_", "-") if isinstance(self.strategy.value, str) else None
        if name not in _STRATEGIES:
            known = ", ".join(_STRATEGIES)
            hint = did_you_mean(str(self.strategy.value), _STRATEGIES)
            self.compiler.problem(self.strategy, f"no strategy {self.strategy.value!r}; there are: {known}{hint}")
            name = "react"
        self.start = self.strategy.saying(_STRATEGIES[name](self))

    # What the file says

    def _goal(self, written: Written | None) -> str:
        if written is None:
            self.compiler.problem(self.agent, "is required: what the agent is to do", "goal")
            return ""
        if isinstance(written.value, dict) and "file" in written.value:
            written = self.compiler.prompt(written, written.value["file"])
        return self.compiler.text(written) or ""

    def _named_tools(self, written: Written | None) -> Written:
        if written is None or written.value is None:
            return self.agent.saying({})
        if not isinstance(written.value, list):
            return written
        named = [m.saying({"name": m}) if isinstance(m.value, str) else m for m in written.value]
        return written.saying(named)

    def definitions(self, section: Written | None) -> Fields:
        """The tools that the file defines. A mere name refers to one of the section, or to one the server knows."""
        known = _dict(self.compiler.by_name(section)) if section is not None else {}
        return {**known, **{name: tool for name, tool in _dict(self.tools).items() if tool.value}}

    def _helper(self, name: str) -> Fields:
        """A second model: `verifier: {model, criteria}`, or `verifier: true` and `verifier_model` in the config."""
        model = self.config.pop(f"{name}_model", None)
        written = self.fields.pop(name, None) or self.config.pop(name, None)
        self.config.pop(name, None)
        if written is not None and isinstance(written.value, bool):
            helper: Fields = {"on": written} if written.value else {}
        else:
            helper = self.compiler.fields(written)
            unknown = {key: value for key, value in helper.items() if key not in _HELPER}
            report_unknown(self.compiler, unknown, _HELPER)
        return {**helper, "model": model} if model is not None else helper

    def _number(self, name: str, default: int) -> int:
        aliases = {"agents": ("agents", "num_agents"), "rounds": ("rounds",)}[name]
        written = next((f.pop(a) for f in (self.fields, self.config) for a in aliases if a in f), None)
        if written is None:
            return default
        if isinstance(written.value, bool) or not isinstance(written.value, int) or not 1 <= written.value <= 20:
            self.compiler.problem(written, "must be a whole number from 1 to 20")
            return default
        return written.value

    def _take_limit_rule(self) -> None:
        rule = self.fields.pop("on_limit_exceeded", None)
        if rule is not None and rule.value != "fail":
            self.compiler.problem(rule, f"{rule.value!r} is not available; an agent at its limit fails: 'fail'")
        steps = self.config.pop("max_steps", None)
        limits = self.fields.get("limits")
        if steps is not None and (limits is None or "max_iterations" not in self.compiler.fields(limits)):
            self.fields["limits"] = (limits or steps).saying({**_dict(limits), "max_iterations": steps})

    # What the graph is made of

    def think(
        self, node_id: str, prompt: str, schema: Tree, *, key: str | None = None, helper: Fields | None = None
    ) -> None:
        """A model node."""
        model = (helper or {}).get("model") or self.model
        kind: Tree = {"type": self.strategy.saying("model"), "prompt": prompt, "output_schema": schema}
        kind.update({} if model is None else {"model": model})
        kind.update({} if self.system is None else {"system": self.system})
        self.add(node_id, {"kind": {**kind, **self.tuning}, **({"output_key": key} if key else {})})

    def work(self, node_id: str, task: str, schema: Tree, *, done: str, then: str) -> None:
        """A model node that may call tools, over and over, before it goes on."""
        tools = [name for name in _dict(self.tools) if name != _FINISH]
        calls = _call_ids(node_id, tools)
        self.think(node_id, *((_with_tools(task, self.tools), _calling(schema, tools)) if tools else (task, schema)))
        self.link(node_id, f"{node_id}_next")
        ways = [(f"state.tool == {name!r}", call) for name, call in calls.items()]
        self.choose(f"{node_id}_next", [*ways, (done, then)], otherwise=node_id)
        for name, call in calls.items():
            self._call(call, name, node_id)

    def choose(self, node_id: str, ways: list[tuple[str, str]], *, otherwise: str) -> None:
        branches: list[Tree] = [{"condition": condition, "target": target} for condition, target in ways]
        self.add(node_id, {"kind": {"type": "condition", "branches": [*branches, {"target": otherwise}]}})

    def link(self, *node_ids: str) -> None:
        self.edges += [self.strategy.saying({"from": a, "to": b}) for a, b in pairwise(node_ids)]

    def _call(self, node_id: str, tool: str, back: str) -> None:
        kind = {"type": "tool", "tool_ref": tool, "arguments": "{{ state.arguments | default({}) }}"}
        self.nodes[node_id] = _dict(self.tools)[tool].saying({"kind": kind, "output_key": "observation"})
        self.link(node_id, back)

    def add(self, node_id: str, node: Tree) -> None:
        self.nodes[node_id] = self.strategy.saying(node)


def _react(plan: _Plan) -> str:
    plan.work("think", plan.goal, _ANSWER, done="state.answer", then="end")
    return "think"


def _plan_and_execute(plan: _Plan) -> str:
    plan.think("plan", _PLAN_PROMPT.format(goal=plan.goal), _STEPS)
    plan.link("plan", "execute")
    after = "verify" if plan.verifier else "finish"
    task = _EXECUTE_PROMPT.format(goal=plan.goal)
    plan.work("execute", task, _PROGRESS, done="state.results and not state.remaining", then=after)
    if plan.verifier:
        _verdict(plan, "verify", "state.results", plan.verifier, passed="finish", failed="plan")
    plan.think("finish", _FINISH_PROMPT.format(goal=plan.goal), _TEXT, key="answer")
    return "plan"


def _critic(plan: _Plan) -> str:
    return _revised(plan, plan.verifier)


def _reflection(plan: _Plan) -> str:
    return _revised(plan, {name: value for name, value in plan.verifier.items() if name != "model"})


def _revised(plan: _Plan, critic: Fields) -> str:
    plan.work("draft", f"{plan.goal}{_REVISE}", _ANSWER, done="state.answer", then="critique")
    _verdict(plan, "critique", "state.answer", critic, passed="end", failed="draft")
    return "draft"


def _consensus(plan: _Plan) -> str:
    drafts = [f"draft_{number}" for number in range(1, plan.count + 1)]
    plan.add("drafts", {"kind": {"type": "parallel", "branches": drafts, "join": "gathered"}})
    for draft in drafts:
        plan.think(draft, plan.goal, _TEXT, key=draft)
    plan.add("gathered", {"kind": {"type": "join", "wait_for": drafts}})
    plan.link("gathered", "judge")
    _judge(plan, [f"Answer {number}:\n{{{{ state.{draft} }}}}" for number, draft in enumerate(drafts, 1)])
    return "drafts"


def _debate(plan: _Plan) -> str:
    said: list[str] = []
    turns = [(side, number) for number in range(1, plan.rounds + 1) for side in ("for", "against")]
    for side, number in turns:
        node_id = f"argue_{side}_{number}"
        prompt = _ARGUE_PROMPT.format(goal=plan.goal, side=side, said="\n\n".join(said) or "Nothing yet.")
        plan.think(node_id, prompt, _TEXT, key=node_id)
        said.append(f"{side.capitalize()}, round {number}:\n{{{{ state.{node_id} }}}}")
    plan.link(*(f"argue_{side}_{number}" for side, number in turns), "judge")
    _judge(plan, said)
    return "argue_for_1"


_STRATEGIES: dict[str, Callable[[_Plan], str]] = {
    "react": _react,
    "plan-and-execute": _plan_and_execute,
    "critic": _critic,
    "reflection": _reflection,
    "consensus": _consensus,
    "debate": _debate,
}


def _verdict(plan: _Plan, node_id: str, what: str, helper: Fields, *, passed: str, failed: str) -> None:
    criteria = _text_of(helper.get("criteria") or helper.get("prompt"), "Is it correct, complete and well made?")
    threshold = plain(helper["pass_threshold"]) if "pass_threshold" in helper else None
    prompt = _VERDICT_PROMPT.format(goal=plan.goal, what=what, criteria=criteria)
    plan.think(node_id, prompt, _VERDICT, key="verdict", helper=helper)
    condition = "state.verdict.passed" if threshold is None else f"state.verdict.score >= {json.dumps(threshold)}"
    plan.choose(f"{node_id}_next", [(condition, passed)], otherwise=failed)
    plan.link(node_id, f"{node_id}_next")


def _judge(plan: _Plan, said: list[str]) -> None:
    criteria = _text_of(plan.judge.get("criteria"), "Which is the most accurate, complete and well reasoned?")
    prompt = _JUDGE_PROMPT.format(goal=plan.goal, said="\n\n".join(said), criteria=criteria)
    plan.think("judge", prompt, _TEXT, key="answer", helper=plan.judge)


def _call_ids(node_id: str, tools: list[str]) -> dict[str, str]:
    """The node of each tool; what a node id cannot hold, as the colon of `module:function`, becomes `_`."""
    ids: dict[str, str] = {}
    for name in tools:
        call = f"{node_id}_" + re.sub(r"[^\w.-]", "_", name)
        while call in (f"{node_id}_next", *ids.values()):
            call += "_"
        ids[name] = call
    return ids


def _calling(schema: Tree, tools: list[str]) -> Tree:
    """An answer that may call a tool instead. `tool` is required: what the state holds from before must not last."""
    call = {"tool": {"type": ["string", "null"], "enum": [*tools, None]}, "arguments": {"type": "object"}}
    properties = {"notes": {"type": "string"}, **call, **schema["properties"]}
    return {**schema, "properties": properties, "required": ["tool"]}


def _with_tools(task: str, tools: Written) -> str:
    described = "\n".join(_described(name, tool) for name, tool in _dict(tools).items() if name != _FINISH)
    return _TOOLS_PROMPT.format(task=task, tools=described)


def _described(name: str, tool: Written) -> str:
    values = plain(tool)
    values = values if isinstance(values, dict) else {}
    schema = _literal(json.dumps(values.get("input_schema", {})))
    return f"- {name}: {_literal(str(values.get('description', '')))} Arguments: {schema}"


def _literal(text: str) -> str:
    """Text that a template leaves as it is."""
    for opening in ("{{", "{%", "{#"):
        text = text.replace(opening, f"{{ {opening[1]}")
    return text


def _text_of(written: Written | None, default: str) -> str:
    return written.value if written is not None and isinstance(written.value, str) else default


def _dict(written: Written | None) -> dict[str, Any]:
    return written.value if written is not None and isinstance(written.value, dict) else {}


def _object(**properties: Any) -> Tree:
    return {"type": "object", "properties": properties}


_STRINGS = {"type": "array", "items": {"type": "string"}}
_TEXT: Tree = {"type": "string"}
_ANSWER = _object(answer={"type": ["string", "null"]})
_STEPS = _object(steps=_STRINGS)
_PROGRESS = _object(results=_STRINGS, remaining=_STRINGS)
_VERDICT = _object(passed={"type": "boolean"}, score={"type": "number"}, feedback={"type": "string"})

_SYSTEM = ("system", "system_prompt", "instructions")
_HELPER = frozenset({"model", "criteria", "prompt", "pass_threshold"})
_CONFIG = {"max_steps", "verifier", "verifier_model", "judge", "judge_model", "agents", "num_agents", "rounds"}
AGENT = frozenset(
    {"id", "version", "name", "description", "labels", "strategy", "strategy_config", "goal", "tools", "model"}
    | {"limits", "verifier", "judge", "agents", "rounds", "temperature", "max_tokens", "state_schema", "policy"}
    | {*_SYSTEM, "on_limit_exceeded", "models", "mcp", "a2a", "retry_policies", "timeouts", "data_policy"}
)

_TOOLS_PROMPT = """{task}

You may use these tools:
{tools}

Your notes so far: {{{{ state.notes | default('none') }}}}
What the last tool answered: {{{{ state.observation | default('nothing yet') }}}}

Either call one tool: give its name as `tool` and its `arguments`; or, when no tool is needed any more, leave `tool` \
null and fill in the rest. Keep in `notes` whatever you will need later."""

_PLAN_PROMPT = """{goal}

Make a plan: the `steps` that lead to this goal, in their order.
What was wrong with the last plan's outcome: {{{{ state.verdict.feedback | default('there was none') }}}}"""

_EXECUTE_PROMPT = """{goal}

The plan: {{{{ state.steps }}}}
Results so far: {{{{ state.results | default([]) }}}}
Steps that remain: {{{{ state.remaining | default(state.steps) }}}}

Do the next step. Answer all `results`, the new one last, and the steps that then remain as `remaining`."""

_FINISH_PROMPT = """{goal}

These are the results of all steps; make one answer of them:
{{{{ state.results }}}}"""

_REVISE = """

Your last draft: {{ state.answer | default('none yet') }}
What was wrong with it: {{ state.verdict.feedback | default('nothing yet') }}
Give the whole, improved text as `answer`."""

_VERDICT_PROMPT = """The task was:
{goal}

This was made:
{{{{ {what} }}}}

{criteria}
Say whether it `passed`, a `score` from 0 to 1, and as `feedback` what must be better."""

_ARGUE_PROMPT = """The question:
{goal}

Said so far:
{said}

Argue {side}. Answer what the other side said. Give your argument as `answer`."""

_JUDGE_PROMPT = """The task was:
{goal}

{said}

{criteria}
Give the best final answer."""
