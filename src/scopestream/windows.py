"""Which display window each frame belongs to: one for each channel of each camera."""

from __future__ import annotations

import numpy as np

from scopestream.plan import LayoutPlan
from scopestream.route import Route


class Windows:
    """Numbers of windows.

    step  (stride, count) where the number of a frame tells: its window is number // stride % count. None where its
          place must be looked at, because channels differ from image to image, or are merged from several dimensions
    """

    def __init__(self, plan: LayoutPlan, route: Route) -> None:
        self._plan, self._route = plan, route
        axes = plan.images[0].axes[:-2]
        self._axis = next((n for n, axis in enumerate(axes) if axis.dimension.type == "channel"), None)
        shown = plan.images[0].windows
        self.step: tuple[int, int] | None = None
        if all(image.windows is shown for image in plan.images):
            if self._axis is None:
                self.step = (1, 1)
            elif not axes[self._axis].is_merged:
                self.step = route.step(axes[self._axis].parts[0].name)

    def of(self, number: int) -> int:
        """The window of a frame."""
        if self.step is not None:
            return number // self.step[0] % self.step[1]
        image, index = self._route.locate(number)
        return self._plan.images[image].windows[0 if self._axis is None else index[self._axis]]

    def of_all(self, numbers: np.ndarray) -> np.ndarray:
        """Of many frames, (n,) int64 each."""
        if self.step is not None:
            windows: np.ndarray = numbers // self.step[0] % self.step[1]
            return windows
        return np.fromiter(map(self.of, numbers.tolist()), np.int64, len(numbers))
