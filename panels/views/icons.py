"""Icons drawn by code: sharp at any scale, in the text's colour, no files to find."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from panels import style
from panels.qt import QtCore, QtGui

_SIZES = (16, 32, 48)
_Draw = Callable[[QtGui.QPainter], None]


def icon(name: str, tint: str = style.TEXT) -> QtGui.QIcon:
    """The icon of that name (KeyError for another one), grey where its button is disabled."""
    draw = _DRAWN[name]
    result = QtGui.QIcon()
    for mode, colour in ((QtGui.QIcon.Mode.Normal, tint), (QtGui.QIcon.Mode.Disabled, style.FAINT)):
        for size in _SIZES:
            result.addPixmap(_pixmap(draw, size, colour), mode)
    return result


def _pixmap(draw: _Draw, size: int, colour: str) -> QtGui.QPixmap:
    pixmap = QtGui.QPixmap(size, size)
    pixmap.fill(QtCore.Qt.GlobalColor.transparent)
    painter = QtGui.QPainter(pixmap)
    painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
    painter.scale(size / 16.0, size / 16.0)
    pen = QtGui.QPen(QtGui.QColor(colour), 1.4)
    pen.setCapStyle(QtCore.Qt.PenCapStyle.RoundCap)
    pen.setJoinStyle(QtCore.Qt.PenJoinStyle.RoundJoin)
    painter.setPen(pen)
    draw(painter)
    painter.end()
    return pixmap


def _lines(painter: QtGui.QPainter, *points: float, closed: bool = False, filled: bool = False) -> None:
    polygon = QtGui.QPolygonF([QtCore.QPointF(x, y) for x, y in zip(points[::2], points[1::2], strict=True)])
    if filled:
        painter.setBrush(painter.pen().color())
    painter.drawPolygon(polygon) if closed or filled else painter.drawPolyline(polygon)


def _diamond(painter: QtGui.QPainter, filled: bool, half: bool = False) -> None:
    _lines(painter, 8, 3, 13, 8, 8, 13, 3, 8, closed=True, filled=filled)
    if half:
        painter.setBrush(painter.pen().color())
        painter.drawPolygon(QtGui.QPolygonF([QtCore.QPointF(8, 3), QtCore.QPointF(3, 8), QtCore.QPointF(8, 13)]))


def _key_step(painter: QtGui.QPainter, forward: bool) -> None:
    if forward:
        _lines(painter, 6, 4.5, 10, 8, 6, 11.5, filled=True)
    else:
        _lines(painter, 10, 4.5, 6, 8, 10, 11.5, filled=True)


def _cross(painter: QtGui.QPainter) -> None:
    painter.drawLine(QtCore.QPointF(4, 4), QtCore.QPointF(12, 12))
    painter.drawLine(QtCore.QPointF(12, 4), QtCore.QPointF(4, 12))


def _plus(painter: QtGui.QPainter) -> None:
    painter.drawLine(QtCore.QPointF(8, 3.5), QtCore.QPointF(8, 12.5))
    painter.drawLine(QtCore.QPointF(3.5, 8), QtCore.QPointF(12.5, 8))


def _grip(painter: QtGui.QPainter) -> None:
    painter.setBrush(painter.pen().color())
    painter.setPen(QtCore.Qt.PenStyle.NoPen)
    for x in (6.0, 10.0):
        for y in (4.0, 8.0, 12.0):
            painter.drawEllipse(QtCore.QPointF(x, y), 1.0, 1.0)


def _fit(painter: QtGui.QPainter) -> None:
    for x, dx in ((3, 3), (13, -3)):
        for y, dy in ((3, 3), (13, -3)):
            _lines(painter, x + dx, y, x, y, x, y + dy)


def _wipe(painter: QtGui.QPainter) -> None:
    painter.drawRect(QtCore.QRectF(2.5, 3.5, 11, 9))
    painter.drawLine(QtCore.QPointF(8, 1.5), QtCore.QPointF(8, 14.5))
    fill = QtGui.QColor(painter.pen().color())
    fill.setAlpha(110)
    painter.fillRect(QtCore.QRectF(8, 3.5, 5.5, 9), fill)


def _matte(painter: QtGui.QPainter) -> None:
    painter.drawRect(QtCore.QRectF(2.5, 3.5, 11, 9))
    painter.setBrush(painter.pen().color())
    painter.drawEllipse(QtCore.QPointF(8, 8), 2.4, 3.0)


def _picture(painter: QtGui.QPainter) -> None:
    painter.drawRect(QtCore.QRectF(2.5, 3.5, 11, 9))
    _lines(painter, 3, 11.5, 6, 8, 8.5, 10.5, 10.5, 8.5, 13, 11)


def _result(painter: QtGui.QPainter) -> None:
    painter.drawRect(QtCore.QRectF(2.5, 3.5, 11, 9))
    _lines(painter, 8, 5, 8.9, 7.1, 11, 8, 8.9, 8.9, 8, 11, 7.1, 8.9, 5, 8, 7.1, 7.1, filled=True)


def _folder(painter: QtGui.QPainter) -> None:
    _lines(painter, 2.5, 12.5, 2.5, 4, 6.5, 4, 8, 5.5, 13.5, 5.5, 13.5, 12.5, closed=True)


def _search(painter: QtGui.QPainter) -> None:
    painter.drawEllipse(QtCore.QPointF(7, 7), 3.8, 3.8)
    painter.drawLine(QtCore.QPointF(10, 10), QtCore.QPointF(13, 13))


def _again(painter: QtGui.QPainter) -> None:
    painter.drawArc(QtCore.QRectF(3.5, 3.5, 9, 9), 40 * 16, 280 * 16)
    _lines(painter, 9.5, 5.8, 12.2, 5.6, 12.4, 2.9)


def _gear(painter: QtGui.QPainter) -> None:
    for y, x in ((4.5, 10.0), (8.0, 6.0), (11.5, 9.0)):
        painter.drawLine(QtCore.QPointF(3, y), QtCore.QPointF(13, y))
        painter.setBrush(painter.pen().color())
        painter.drawEllipse(QtCore.QPointF(x, y), 1.5, 1.5)


def _step(painter: QtGui.QPainter, forward: bool, end: bool) -> None:
    sign = 1 if forward else -1
    _lines(painter, 8 - 3 * sign, 4, 8 + 2.5 * sign, 8, 8 - 3 * sign, 12, filled=True)
    if end:
        painter.drawLine(QtCore.QPointF(8 + 4 * sign, 4), QtCore.QPointF(8 + 4 * sign, 12))


def _locked(painter: QtGui.QPainter) -> None:
    painter.drawRect(QtCore.QRectF(4, 7.5, 8, 5.5))
    painter.drawArc(QtCore.QRectF(5.5, 3, 5, 8), 0, 180 * 16)


def _warning(painter: QtGui.QPainter) -> None:
    _lines(painter, 8, 2.5, 14, 13, 2, 13, closed=True)
    painter.drawLine(QtCore.QPointF(8, 6.5), QtCore.QPointF(8, 9.3))
    painter.drawPoint(QtCore.QPointF(8, 11.3))


def _download(painter: QtGui.QPainter) -> None:
    painter.drawLine(QtCore.QPointF(8, 3), QtCore.QPointF(8, 10))
    _lines(painter, 5, 7.5, 8, 10.5, 11, 7.5)
    _lines(painter, 3, 11, 3, 13, 13, 13, 13, 11)


_DRAWN: dict[str, _Draw] = {
    "key-none": partial(_diamond, filled=False),
    "key-here": partial(_diamond, filled=True),
    "key-between": partial(_diamond, filled=False, half=True),
    "key-previous": partial(_key_step, forward=False),
    "key-next": partial(_key_step, forward=True),
    "folded": lambda p: _lines(p, 6.5, 4.5, 10, 8, 6.5, 11.5),
    "unfolded": lambda p: _lines(p, 4.5, 6.5, 8, 10, 11.5, 6.5),
    "up": lambda p: _lines(p, 4.5, 9.5, 8, 6, 11.5, 9.5),
    "down": lambda p: _lines(p, 4.5, 6.5, 8, 10, 11.5, 6.5),
    "remove": _cross,
    "add": _plus,
    "grip": _grip,
    "fit": _fit,
    "wipe": _wipe,
    "matte": _matte,
    "plate": _picture,
    "result": _result,
    "folder": _folder,
    "search": _search,
    "again": _again,
    "settings": _gear,
    "first": partial(_step, forward=False, end=True),
    "back": partial(_step, forward=False, end=False),
    "forward": partial(_step, forward=True, end=False),
    "last": partial(_step, forward=True, end=True),
    "locked": _locked,
    "warning": _warning,
    "download": _download,
}
