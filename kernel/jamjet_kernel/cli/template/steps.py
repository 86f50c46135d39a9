"""The steps of workflow.yaml: plain functions, called with the values of the state that they name.

They may be `async`, and may ask for `context` to learn the execution, the attempt and a deadline.
"""


def read(text: str = "Durable workflows pick up where they stopped.") -> dict[str, str]:
    return {"text": " ".join(text.split())}


def count(text: str) -> dict[str, int]:
    return {"words": len(text.split())}


def find_longest(text: str) -> dict[str, str]:
    return {"longest": max(text.split(), key=len, default="")}


def report(words: int, longest: str) -> dict[str, str]:
    return {"report": f"{words} words; the longest is {longest!r}"}


def ask_for_more(words: int) -> dict[str, str]:
    return {"report": f"only {words} words; write a little more"}
