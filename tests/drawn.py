"""What tests of pictures look at: the texts of a figure, and whether they can be read."""

from itertools import combinations

from matplotlib.text import Text


def said(figure):
    """All that a figure, or a part of one, says: titles, labels, legends, notes."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_text())


def require_tidy(figure, smallest=6.0):
    """No text over another, none beyond the figure, none too small."""
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    unseen = _labels_that_are_not_drawn(figure)
    shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    shown = [text for text in shown if text not in unseen]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    boxes = [(text, box) for text, box in boxes if box.x1 > 0 and box.width > 1]
    for (one, a), (other, b) in combinations(boxes, 2):
        across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= 2 or up <= 2, f"{one!r} lies over {other!r}"
    for text, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"{text!r} is cut off"
    assert all(text.get_fontsize() >= smallest for text in shown)


def _labels_that_are_not_drawn(figure):
    """Those of ticks beyond the ends of their axis, and of an axis that has none."""
    found = set()
    for axes in figure.axes:
        for axis, shown in ((axes.xaxis, "labelbottom"), (axes.yaxis, "labelleft")):
            if not axis.get_tick_params().get(shown, True):
                found |= set(axis.get_ticklabels())
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    found |= {tick.label1, tick.label2}
    return found
