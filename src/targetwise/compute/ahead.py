"""Work that a thread does for what comes next, while what it has done is used."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


@contextmanager
def ahead(make: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Iterator[Made]]:
    """Yield what ``make`` returns for each of ``items``, in their order; the next ones are made in threads meanwhile.

    Args:
        make: of one item, in any thread.
        items: any number, of which no more are made ahead than there are threads.
        threads: how many work at a time.
    """

    def made() -> Iterator[Made]:
        rest = iter(items)
        coming = deque(executor.submit(make, item) for item in itertools.islice(rest, threads))
        while coming:
            ready = coming.popleft().result()
            coming.extend(executor.submit(make, item) for item in itertools.islice(rest, 1))
            yield ready

    with ThreadPoolExecutor(threads) as executor:
        yield made()
