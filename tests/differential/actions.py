"""Datapath actions as text, read into lists that can be compared.

Both switches print the same syntax ("set(eth(dst=...)),push_vlan(vid=1,pcp=0),p2,clone(...),trunc(64),p3"), with port names.
canonical() leaves away only what does not change the effect, and says so here:

- userspace(...): which packet-in it makes is not in the datapath's own terms; it stays that there is one, here.
- in set(...), the order of fields, and the spelling of masks.
- an empty list and `drop` are the same.
"""
import re


def split(text):
    """Splits at commas that are in no parentheses."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char in "({":
            depth += 1
        elif char in ")}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    if depth:
        raise ValueError(f"parentheses do not match: {text}")
    last = text[start:]
    return [part.strip() for part in (*parts, last) if part.strip()]


def canonical(text):
    """A list of strings and ("clone", [...]) tuples."""
    result = []
    for part in split(text):
        name, _, rest = part.partition("(")
        inner = rest[:-1] if rest else ""
        if name == "drop":
            continue
        if name == "userspace":
            result.append("userspace")
        elif name == "clone":
            result.append(("clone", canonical(inner)))
        elif name == "set":
            result.append(_set(inner))
        else:
            result.append(re.sub(r"\s", "", part))
    return result


def _set(inner):
    name, _, rest = inner.partition("(")
    if not rest:
        return f"set({inner})"
    fields = []
    for field in split(rest[:-1]):
        key, _, value = field.partition("=")
        fields.append(f"{key}={_number(value)}" if value else _number(key))
    return f"set({name}({','.join(sorted(fields))}))"


def _number(value):
    """A number, or number/mask, in one spelling; anything else as it is."""
    words = []
    for word in value.split("/"):
        try:
            words.append(f"{int(word, 0):#x}")
        except ValueError:
            words.append(word)
    return "/".join(words)


def trace_parts(text):
    """(datapath actions, megaflow) of a trace's last pass."""
    actions = re.findall(r"^Datapath actions: (.*)$", text, re.MULTILINE)
    megaflow = re.findall(r"^Megaflow: (.*)$", text, re.MULTILINE)
    if not actions:
        raise ValueError(f"no datapath actions in trace:\n{text}")
    return ",".join(part for part in actions if part != "drop"), megaflow[-1] if megaflow else ""


def megaflow_fields(text):
    """The names of fields that a megaflow looks at."""
    return {part.partition("=")[0] for part in split(text)}
