"""How the panel looks: neutral greys that do not colour the eye, one accent, sizes that follow the font.

The style sheet is set on the panel's own window and never on the application, so that a host keeps its look. Lengths
are device-independent pixels or follow the font's height; nothing has a fixed height in which text could be cut off.
"""

from __future__ import annotations

from panels.qt import QtGui, QtWidgets

# The picture's surround is close to 18 % grey's display value halved: dark enough to judge highlights, no hue.
SURROUND = "#1b1b1b"
WINDOW = "#2e2e2e"
RAISED = "#464646"
HOVER = "#535353"
FIELD = "#212121"
BORDER = "#1a1a1a"
LINE = "#3d3d3d"
TEXT = "#d6d6d6"
DIM = "#a0a0a0"
FAINT = "#727272"
ACCENT = "#d9963a"
SELECTED = "#4d5d6e"
GOOD = "#7fa86c"
BAD = "#d8695c"
MARK = "#6fa8c9"  # overlays in the picture that are not the chosen face

MARGIN = 6
GAP = 4


def color(name: str, alpha: int = 255) -> QtGui.QColor:
    """A colour of the palette above; `alpha` 0..255."""
    result = QtGui.QColor(name)
    result.setAlpha(alpha)
    return result


def em(widget: QtWidgets.QWidget) -> int:
    """The height of a line of the widget's font, the unit of everything that must grow with text."""
    return int(widget.fontMetrics().height())


def apply(window: QtWidgets.QWidget) -> None:
    """Give a top-level widget, and all it holds, the panel's look."""
    window.setStyleSheet(STYLE_SHEET)


STYLE_SHEET = f"""
* {{ color: {TEXT}; selection-background-color: {SELECTED}; selection-color: white; outline: none; }}
QWidget {{ background-color: {WINDOW}; }}
QLabel, QCheckBox, QRadioButton {{ background: transparent; }}
*:disabled {{ color: {FAINT}; }}
QLabel[role="dim"] {{ color: {DIM}; }}
QLabel[role="head"] {{ font-weight: 600; }}
QLabel[role="bad"] {{ color: {BAD}; }}
QLabel[role="good"] {{ color: {GOOD}; }}
QLabel[role="warn"] {{ color: {ACCENT}; }}

QPushButton, QToolButton {{
    background: {RAISED}; border: 1px solid {BORDER}; border-radius: 2px; padding: 3px 8px;
}}
QToolButton {{ padding: 3px; }}
QPushButton:hover, QToolButton:hover {{ background: {HOVER}; }}
QPushButton:pressed, QToolButton:pressed {{ background: {FIELD}; }}
QPushButton:checked, QToolButton:checked {{ background: {SELECTED}; color: white; }}
QPushButton:disabled, QToolButton:disabled {{ background: {LINE}; color: {FAINT}; }}
QPushButton:focus, QToolButton:focus {{ border-color: {DIM}; }}
QPushButton[role="main"] {{ background: {ACCENT}; color: #1a1a1a; font-weight: 600; }}
QPushButton[role="main"]:hover {{ background: #e6a852; }}
QPushButton[role="main"]:disabled {{ background: {LINE}; color: {FAINT}; }}
QToolButton[role="tiny"] {{ background: transparent; border: 1px solid transparent; padding: 1px 0px; }}
QToolButton[role="tiny"]:hover {{ background: {LINE}; }}
QToolButton[role="tiny"]:focus {{ border-color: {DIM}; }}
QToolButton[role="flat"] {{ background: transparent; border-color: transparent; padding: 2px; }}
QToolButton[role="flat"]:hover {{ background: {LINE}; }}
QToolButton[role="flat"]:focus {{ border-color: {DIM}; }}
QToolButton[role="flat"]:checked {{ background: {SELECTED}; }}
QToolButton[role="fold"] {{
    background: transparent; border: 1px solid transparent; border-bottom-color: {LINE}; padding: 3px 2px;
    text-align: left; font-weight: 600;
}}
QToolButton[role="fold"]:hover {{ color: white; }}
QToolButton[role="fold"]:focus {{ border-color: {DIM}; }}
QToolButton::menu-indicator {{ image: none; }}

QLineEdit, QComboBox {{
    background: {FIELD}; border: 1px solid {BORDER}; border-radius: 2px; padding: 2px 4px;
}}
QLineEdit:focus, QComboBox:focus {{ border-color: {DIM}; }}
QLineEdit:disabled, QComboBox:disabled {{ background: {WINDOW}; }}
QLineEdit[state="bad"] {{ border-color: {BAD}; }}
QLineEdit[keyed="here"] {{ background: #59431f; }}
QLineEdit[keyed="between"] {{ background: #333a41; }}
QComboBox {{ padding-right: 16px; background: {RAISED}; }}
QComboBox:hover {{ background: {HOVER}; }}
QComboBox::drop-down {{ border: none; width: 0px; }}
QComboBox::down-arrow {{ image: none; }}
QComboBox QAbstractItemView {{ background: {FIELD}; border: 1px solid {BORDER}; }}

QAbstractItemView {{
    background: {FIELD}; border: 1px solid {BORDER}; alternate-background-color: #262626;
}}
QAbstractItemView:focus {{ border-color: {DIM}; }}
QAbstractItemView::item {{ padding: 2px; }}
QAbstractItemView::item:selected {{ background: {SELECTED}; color: white; }}
QHeaderView::section {{ background: {WINDOW}; color: {DIM}; border: none; padding: 3px 4px; }}
QHeaderView {{ background: {WINDOW}; border: none; }}

QTabWidget::pane {{ border: none; border-top: 1px solid {BORDER}; }}
QTabBar {{ background: transparent; }}
QTabBar::tab {{
    background: transparent; color: {DIM}; padding: 5px 9px; border: none; border-bottom: 2px solid transparent;
}}
QTabBar::tab:hover {{ color: white; }}
QTabBar::tab:selected {{ color: white; border-bottom-color: {ACCENT}; }}
QTabBar::tab:focus {{ background: {LINE}; }}

QScrollArea {{ border: none; }}
QScrollBar:vertical {{ background: transparent; width: 10px; margin: 0; }}
QScrollBar:horizontal {{ background: transparent; height: 10px; margin: 0; }}
QScrollBar::handle {{ background: {RAISED}; border-radius: 3px; min-height: 24px; min-width: 24px; margin: 2px; }}
QScrollBar::handle:hover {{ background: {HOVER}; }}
QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}

QProgressBar {{
    background: {FIELD}; border: 1px solid {BORDER}; border-radius: 2px; text-align: center; padding: 0px;
}}
QProgressBar::chunk {{ background: {SELECTED}; }}
QCheckBox {{ spacing: 6px; }}
QCheckBox::indicator, QAbstractItemView::indicator {{
    width: 12px; height: 12px; border: 1px solid {FAINT}; background: {FIELD}; border-radius: 2px;
}}
QCheckBox::indicator:checked, QAbstractItemView::indicator:checked {{ background: {ACCENT}; border-color: {ACCENT}; }}
QCheckBox::indicator:disabled, QAbstractItemView::indicator:disabled {{ border-color: {LINE}; }}
QCheckBox::indicator:checked:disabled {{ background: {FAINT}; }}
QCheckBox:focus {{ color: white; }}
QSplitter::handle {{ background: {BORDER}; }}
QSplitter::handle:horizontal {{ width: 3px; }}
QSplitter::handle:vertical {{ height: 3px; }}
QToolTip {{ background: #3a3a3a; color: {TEXT}; border: 1px solid {BORDER}; padding: 3px; }}
QMenu {{ background: #383838; border: 1px solid {BORDER}; padding: 3px; }}
QMenu::item {{ padding: 4px 22px 4px 18px; }}
QMenu::item:selected {{ background: {SELECTED}; }}
QMenu::item:disabled {{ color: {FAINT}; }}
QMenu::separator {{ height: 1px; background: {LINE}; margin: 3px 4px; }}
"""
