"""The bridge between the event loop and the worker's thread."""

from __future__ import annotations

import asyncio
import threading
import time

from windowkv_service.engine.mailbox import Inbox, Outbox, Reply


def nothing() -> None:
    return


def test_mail_is_taken_in_the_order_it_came() -> None:
    inbox, seen = Inbox(), []
    for number in range(5):
        inbox.put(lambda number=number: seen.append(number))  # type: ignore[misc]
    assert len(inbox) == 5
    for act in inbox.take(0.0):
        act()
    assert seen == [0, 1, 2, 3, 4]
    assert (len(inbox), inbox.take(0.0)) == (0, [])


def test_taking_waits_for_mail_and_no_longer() -> None:
    inbox = Inbox()
    threading.Timer(0.05, inbox.put, [nothing]).start()
    started = time.monotonic()
    assert inbox.take(30.0) == [nothing]
    assert time.monotonic() - started < 20.0


def test_waking_ends_the_wait_without_mail() -> None:
    inbox = Inbox()
    threading.Timer(0.05, inbox.wake).start()
    assert inbox.take(30.0) == []


def test_a_wake_that_came_before_the_wait_is_not_lost() -> None:
    inbox = Inbox()
    inbox.wake()
    assert inbox.take(30.0) == []


def test_mail_from_many_threads_arrives_once_each() -> None:
    inbox, taken = Inbox(), 0
    senders = [threading.Thread(target=lambda: [inbox.put(nothing) for _ in range(500)]) for _ in range(4)]
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders) or len(inbox):
        taken += len(inbox.take(0.01))
    assert taken == 2000


async def test_events_of_one_step_arrive_together_and_in_order() -> None:
    outbox, one, other = Outbox(asyncio.get_running_loop()), Reply(), Reply()
    for event in range(3):
        outbox.put(one, event)
    outbox.put(other, "other")
    assert not one.arrived.is_set(), "nothing leaves before the step is over"
    outbox.flush()
    assert await one.next() == [0, 1, 2]
    assert await other.next() == ["other"]


async def test_what_came_while_nobody_looked_comes_as_one_list() -> None:
    outbox, reply = Outbox(asyncio.get_running_loop()), Reply()
    for event in range(3):
        outbox.put(reply, event)
        outbox.flush()
    await asyncio.sleep(0)
    assert await reply.next() == [0, 1, 2]


async def test_a_reply_waits_for_an_event_from_another_thread() -> None:
    outbox, reply = Outbox(asyncio.get_running_loop()), Reply()

    def send() -> None:
        outbox.put(reply, "late")
        outbox.flush()

    threading.Timer(0.05, send).start()
    assert await asyncio.wait_for(reply.next(), 20) == ["late"]
    assert reply.events == type(reply.events)()
