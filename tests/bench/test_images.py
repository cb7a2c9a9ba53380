from __future__ import annotations

import sys

from bench import images


def test_both_backends_are_compared_and_timed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["images", "--images", "3", "--device", "cpu"])
    images.main()
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| backend | images per second |"
    assert [row.split()[1] for row in rows] == ["pillow", "dali"]
    assert all(int(row.split()[3]) > 0 for row in rows)
