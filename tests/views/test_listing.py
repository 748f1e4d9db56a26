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


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize(
    "gone", [{99}, {98, 99}, set(range(1, 100)), set(range(0, 100, 2)) | {99}, set(range(60, 100))]
)
def test_none_is_left_out_when_objects_of_the_last_page_are_gone(gone: set[int], step: int) -> None:
    first = listing(300 * step, step).page(100)
    assert first.next is not None
    left = [n for n in range(300 * step) if n not in {place * step for place in gone}]
    match = None if step == 1 else lambda n: n % step == 0
    again = Listing(left, lambda n: {"n": n}, str, match).page(1000, first.next)
    seen = [item["n"] for item in again.items]
    assert set(range(100 * step, 300 * step, step)) <= set(seen), "none is left out"
    assert len(seen) == len(set(seen)) and len(seen) < 200 + 64


def test_where_a_whole_page_is_gone_the_list_goes_on_where_it_began() -> None:
    first = listing(300).page(100)
    assert first.next is not None
    page = Listing(range(100, 300), lambda n: {"n": n}, str).page(1000, first.next)
    assert [item["n"] for item in page.items] == list(range(100, 300))


def test_new_objects_in_front_move_the_next_page() -> None:
    newest_first = Listing(range(300, 0, -1), lambda n: {"n": n}, str)
    cursor = newest_first.page(100).next
    assert cursor is not None
    page = Listing(range(350, 0, -1), lambda n: {"n": n}, str).page(3, cursor)
    assert [item["n"] for item in page.items] == [200, 199, 198]


@pytest.mark.parametrize(
    "cursor",
    ["x", "0-1", "0-1.", "0-1.00", "-1.0123456789", "1.0123456789", "0-1" + ".0123456789" * 13, "0-1.é123456789"],
)
def test_a_cursor_that_is_none(cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        listing(10).page(5, cursor)


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
