"""Pages of long lists: in order, each object once, and never for long without a breath."""

from __future__ import annotations

import pytest

from orchestrator.views.listing import SHOWN, STRETCH, Listing


def listing(count: int, step: int = 1) -> Listing[int]:
    """Numbers; with `step` those that it divides."""
    return Listing(range(count), lambda n: {"n": n}, str, None if step == 1 else lambda n: n % step == 0)


@pytest.mark.parametrize("step", [1, 3])
def test_all_pages_together_are_the_list(step: int) -> None:
    found, cursor, pages = list[int](), "", 0
    while True:
        page = listing(1000, step).page(70, cursor)
        found += [item["n"] for item in page.items]
        pages += 1
        assert page.total == len(range(0, 1000, step))
        if page.next is None:
            break
        cursor = page.next
    assert found == list(range(0, 1000, step)) and pages == -(-len(found) // 70)


@pytest.mark.parametrize("step", [1, 3, 1001])
def test_a_page_lets_others_have_their_turn(step: int) -> None:
    """Looking at an object and showing one each take their time; calls wait for neither."""
    since = 0
    weight = {"look": 1 / STRETCH, "show": 1 / SHOWN}
    work = 0.0
    longest = [0.0]

    def did(what: str) -> None:
        nonlocal work
        work += weight[what]
        longest[0] = max(longest[0], work)

    def breathe() -> None:
        nonlocal work, since
        work = 0.0
        since += 1

    def show(number: int) -> dict[str, int]:
        did("show")
        return {"n": number}

    def match(number: int) -> bool:
        did("look")
        return number % step == 0

    Listing(range(5000), show, str, match if step > 1 else None).page(1000, "", breathe)
    assert since >= 40 and longest[0] <= 2.0, (since, longest)
