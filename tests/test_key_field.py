from hypothesis import given
from hypothesis import strategies as st

from lvlmva_lite.widgets import key_field


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=5))
def test_keys_that_are_typed_faster_than_they_are_answered_act_once(messages):
    # A browser sends the whole of its field, of which it has not heard that it be emptied.
    done = []
    field = key_field({"a": lambda: done.append("a"), "b": lambda: done.append("b")})
    for n in range(len(messages)):
        field.set_state({"value": "".join(messages[: n + 1])})
    assert "".join(done) == "".join(messages)
