"""Which display window each frame belongs to: one for each channel of each camera."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scopestream.plan import LayoutPlan
from scopestream.route import Route


class Windows:
    """Numbers of windows.

    of  the window of a frame
    """

    def __init__(self, plan: LayoutPlan, route: Route) -> None:
        self._plan, self._route = plan, route
        axes = plan.images[0].axes[:-2]
        self._axis = next((n for n, axis in enumerate(axes) if axis.dimension.type == "channel"), None)
        self._stride, self._count = 1, 1
        if self._axis is not None and not axes[self._axis].is_merged:
            self._stride, self._count = route.step(axes[self._axis].parts[0].name)
        # Where all images have the same channels the number of a frame tells.
        shown = plan.images[0].windows
        is_plain = self._axis is None or not axes[self._axis].is_merged
        is_plain = is_plain and all(image.windows is shown for image in plan.images)
        self.of: Callable[[int], int] = self._by_number if is_plain else self._by_place

    def _by_number(self, number: int) -> int:
        return number // self._stride % self._count

    def _by_place(self, number: int) -> int:
        image, index = self._route.locate(number)
        return self._plan.images[image].windows[0 if self._axis is None else index[self._axis]]

    def of_all(self, numbers: np.ndarray) -> np.ndarray:
        """Of many frames, (n,) int64 each."""
        if self.of == self._by_number:
            windows: np.ndarray = numbers // self._stride % self._count
            return windows
        return np.fromiter(map(self.of, numbers.tolist()), np.int64, len(numbers))
