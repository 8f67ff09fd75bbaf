"""What LaTeX would read as a command, an argument or another letter."""

from __future__ import annotations

from occluded_reid.evaluation.tables import latex_table, latex_text


def test_text_stays_what_it_says() -> None:
    assert latex_text("a<b | c>d → 2×") == (r"a\textless{}b \textbar{} c\textgreater{}d $\to$ 2$\times$")


def test_a_line_that_begins_with_a_bracket_or_a_star_is_no_argument_of_the_line_before() -> None:
    lines = latex_table(["a", "b"], [["[x]", "1"], ["*", "2"], [" [y]", "3"], ["z", "[4, 5]"]]).splitlines()
    assert [line for line in lines if "&" in line] == [
        r"a & b \\",
        r"{[x]} & 1 \\",
        r"{*} & 2 \\",
        r"{ [y]} & 3 \\",
        r"z & {[4, 5]} \\",
    ]
