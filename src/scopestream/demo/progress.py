"""The progress bar of the demo, and a line below it that says how the stream is."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from scopestream.stats import Stats

_LATE_S = 1.0  # behind the camera: from then on it is worth a glance


class StatsBar(Progress):
    """Shows frames that came of those that are planned, and the statistics of now; from `begin` until it is left."""

    def __init__(self, console: Console) -> None:
        self._line = Text()
        super().__init__(
            SpinnerColumn(), TextColumn("[bold]{task.description}"), BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total} frames"), TimeElapsedColumn(), console=console, expand=True,
        )  # fmt: skip
        self._task = self.add_task("recording", total=None)

    def begin(self, n_frames: int | None) -> None:
        """Appear, knowing how many frames there will be."""
        self.reset(self._task, total=n_frames)
        self.start()

    def show(self, stats: Stats) -> None:
        """Made to be the `on_stats` of `open_stream`."""
        self._line = stats_line(stats)
        self.update(self._task, completed=stats.frames_in + stats.frames_skipped + stats.frames_dropped)

    def get_renderables(self) -> Iterable[RenderableType]:
        """What rich draws: the bar, then the line."""
        yield from super().get_renderables()
        if self._line:
            yield self._line

    def __enter__(self) -> StatsBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.live.is_started:
            self._line = Text()  # a table with the final figures follows
            self.stop()


def stats_line(stats: Stats) -> Text:
    """The figures of now: rates of the last second, the queue, the time of `append`, and how far the disk is behind."""
    late = "bold yellow" if stats.behind_s >= _LATE_S else ""
    parts = [
        Text(f"{stats.recent_frames_per_s:.1f} frames/s", "green"),
        Text(f"{stats.recent_mb_per_s:.1f} MB/s", "green"),
        Text(f"queue {stats.queue_depth}"),
        Text(f"p99 {stats.append_p99_ms:.2f} ms"),
        Text(f"behind {stats.behind_s:.2f} s", late),
    ]
    if stats.frames_dropped:
        parts.append(Text(f"{stats.frames_dropped} dropped", "bold red"))
    return Text("  ") + Text("  ").join(parts)
