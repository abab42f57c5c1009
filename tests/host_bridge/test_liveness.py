from __future__ import annotations

from host_bridge.liveness import Action, Liveness, Phase, Schedule


def test_silence_is_pinged_after_a_second_and_traffic_puts_it_off() -> None:
    live = Liveness.start(100.0).heard(100.0)
    assert live.tick(100.9)[1] is Action.NONE
    live = live.heard(100.9)
    assert live.tick(101.5)[1] is Action.NONE
    live, action = live.tick(101.9)
    assert action is Action.PING
    assert live.tick(102.0)[1] is Action.NONE


def test_three_misses_make_the_server_unreachable() -> None:
    live = Liveness.start(0.0).heard(0.0)
    now, pings = 0.0, []
    while live.phase is not Phase.LOST:
        now += 0.01
        live, action = live.tick(now)
        if action is Action.PING:
            pings.append(round(now, 1))
        assert now < 10
    assert pings == [1.0, 2.0, 3.0]
    assert round(now, 1) == 4.0


def test_one_answer_forgets_the_misses() -> None:
    live = Liveness.start(0.0).heard(0.0)
    live, _ = live.tick(1.0)
    live, _ = live.tick(2.0)
    assert live.missed == 1
    live = live.heard(2.5)
    assert (live.missed, live.phase) == (0, Phase.ALIVE)
    assert live.tick(3.4)[1] is Action.NONE


def test_tries_are_1_2_4_to_32_seconds_apart_each_on_a_fresh_socket() -> None:
    live = Liveness.start(0.0, Schedule(misses=1)).lost(0.0)
    tries, now = [], 0.0
    for _ in range(7):
        now = live.next_try
        assert live.tick(now - 0.01)[1] is Action.NONE
        live, action = live.tick(now)
        assert action is Action.RECONNECT
        tries.append(live.backoff_s)
        now += 1.0
        live, action = live.tick(now)  # nothing was heard
        assert live.phase is Phase.LOST
    assert tries == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0]
    live, _ = live.tick(live.next_try)
    live = live.heard(now + 40)
    assert live.lost(now + 50).backoff_s == 1.0


def test_due_never_lies_before_what_tick_does() -> None:
    live = Liveness.start(0.0)
    for step in range(400):
        now = step * 0.05
        if now < live.due():
            assert live.tick(now) == (live, Action.NONE)
        live, _ = live.tick(now)
        if step == 90:
            live = live.heard(now)
