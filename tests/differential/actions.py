"""Datapath actions as text, read into lists that can be compared.

Both switches print the same syntax ("set(eth(dst=...)),push_vlan(vid=1,pcp=0),p2,clone(...),trunc(64),p3"), with port names.
canonical() leaves away only what does not change the effect, and says so here:

- userspace(...): which packet-in it makes is not in the datapath's own terms; it stays that there is one, here.
- in set(...), the order of fields, and the spelling of masks.
- an empty list and `drop` are the same; so a clone that holds nothing else is nothing (vswitch counts with it what failed behind
  a patch port).
- recirc(...): the number is each switch's own.
- outputs that follow each other with nothing between send the same packet: their order is not looked at, because that of
  `flood` and `all` is not defined.

outputs() is for lists that floods through patch ports put into another order altogether.
"""
import ipaddress
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
        elif name == "recirc":
            result.append("recirc()")
        elif name == "clone":
            cloned = canonical(inner)
            if cloned:
                result.append(("clone", cloned))
        elif name == "set":
            result.append(_set(inner))
        else:
            result.append(re.sub(r"\s", "", part))
    return _sort_outputs(result)


def _is_output(part):
    return isinstance(part, str) and "(" not in part and part not in ("userspace", "pop_vlan")


def _sort_outputs(parts):
    """Sorts each run of outputs, but for the one that a trunc() before it cuts."""
    result, run, cut = [], [], False
    for part in parts:
        if _is_output(part) and not cut:
            run.append(part)
            continue
        result += sorted(run) + [part]
        run = []
        if isinstance(part, str):
            cut = part.startswith("trunc(") or cut and not _is_output(part)
    return result + sorted(run)


def outputs(parts):
    """Where a canonical list sends to and how often, whatever the order and the changes in between: sorted."""
    found, cut = [], ""
    for part in parts:
        if isinstance(part, tuple):
            found += outputs(part[1])
        elif part.startswith("trunc("):
            cut = part
        elif part == "userspace" or _is_output(part):
            found.append(cut + part)
            cut = ""
    return sorted(found)


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


def same_but_for_masks(one, other):
    """Whether two canonical lists are the same where the masks of their set(...) overlap."""
    if len(one) != len(other):
        return False
    for left, right in zip(one, other):
        if isinstance(left, tuple) and isinstance(right, tuple):
            if not same_but_for_masks(left[1], right[1]):
                return False
        elif left != right and not (isinstance(left, str) and isinstance(right, str) and _same_set(left, right)):
            return False
    return True


def _same_set(left, right):
    pattern = re.compile(r"set\((\w+)\((.*)\)\)$")
    one, other = pattern.match(left), pattern.match(right)
    if not one or not other or one[1] != other[1]:
        return False
    fields = [dict(field.partition("=")[::2] for field in split(match[2])) for match in (one, other)]
    # A field that is not there is one whose mask is 0.
    return all(_same_bits(fields[0][key], fields[1][key]) for key in fields[0].keys() & fields[1].keys())


def _same_bits(left, right):
    if left == right:
        return True
    try:
        (value, mask), (other_value, other_mask) = _value_and_mask(left), _value_and_mask(right)
    except ValueError:
        return False
    return (value ^ other_value) & mask & other_mask == 0


def _value_and_mask(text):
    value, _, mask = text.partition("/")
    return _to_number(value), _to_number(mask) if mask else -1


def _to_number(text):
    if re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", text):
        return int(text.replace(":", ""), 16)
    if ":" in text or "." in text:
        return int(ipaddress.ip_address(text))
    return int(text, 0)


def passes(text):
    """A trace, cut at each recirculation."""
    return re.split(r"^=+\nrecirc\(", text, flags=re.MULTILINE)


def trace_parts(text):
    """(datapath actions, megaflow) of a trace's first pass: Open vSwitch's does not follow what debug_recirc recirculates."""
    text = passes(text)[0]
    actions = re.findall(r"^Datapath actions: (.*)$", text, re.MULTILINE)
    megaflow = re.findall(r"^Megaflow: (.*)$", text, re.MULTILINE)
    if not actions:
        raise ValueError(f"no datapath actions in trace:\n{text}")
    return ",".join(part for part in actions if part != "drop"), megaflow[-1] if megaflow else ""


def megaflow_fields(text):
    """The names of fields that a megaflow looks at."""
    return {part.partition("=")[0] for part in split(text)}
