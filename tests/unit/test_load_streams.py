"""WebSockets and event streams: what was cut, what took its leave, and which of it is a loss."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import wsproto
import wsproto.events

from tests.load import Load, LoadConfig, Report, Switch
from tests.load.events import EventReader
from tests.load.miniature import Fault, Miniature, Request, answer, chunk, event, event_stream_head
from tests.load.report import Connection, Ending
from tests.load.wire import Lost

ENOUGH = 3  # connections that have come to their end


def watch(app: Miniature, kind: str, switches: list[Switch] | None = None, *, ends: int = ENOUGH) -> Report:
    """Run one client until that many of its connections have ended (0: until an echo came back), then stop it."""

    async def run() -> Report:
        async with app.listening():
            config = LoadConfig(
                url=app.url, app="parcels", workers={kind: 1}, ws_interval=0.001, timeout=60.0, drain=60.0
            )
            load = Load(config)
            await load.start()
            tally = load._running.tally
            async with asyncio.timeout(60):
                while len(tally.connections) < ends or (not ends and not tally.echoes):
                    await asyncio.sleep(0.002)
            return await load.stop(switches)

    return asyncio.run(run())


def websocket_fault(last_words: Callable[[wsproto.WSConnection, str], bytes]) -> Fault:
    """Greet properly, wait for the first message, and say `last_words` to it before the connection ends."""

    async def fault(request: Request) -> bool:
        protocol = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        protocol.receive_data(request.raw_head)
        list(protocol.events())
        writer = request.writer
        writer.write(protocol.send(wsproto.events.AcceptConnection()))
        writer.write(protocol.send(wsproto.events.TextMessage(json.dumps({"release": "1"}))))
        await writer.drain()
        reader: Any = writer.transport.get_protocol()
        protocol.receive_data(await reader._stream_reader.read(65536))
        said = next(item.data for item in protocol.events() if isinstance(item, wsproto.events.TextMessage))
        writer.write(last_words(protocol, said))
        writer.close()
        return True

    return fault


def nothing(_: wsproto.WSConnection, __: str) -> bytes:
    return b""


def farewell(protocol: wsproto.WSConnection, _: str) -> bytes:
    return protocol.send(wsproto.events.CloseConnection(code=1001))


def wrong_echo(protocol: wsproto.WSConnection, said: str) -> bytes:
    return protocol.send(wsproto.events.TextMessage(said + "!"))


def test_a_websocket_that_stays_open_loses_nothing() -> None:
    report = watch(Miniature(), "ws", ends=0)
    assert report.lossless
    assert (report.sent, report.answered) == (1, 1)
    assert [item.end for item in report.connections] == [Ending.STOPPED]
    assert report.connections[0].release == "1"
    assert report.echoes > 0


def test_a_websocket_cut_is_a_loss() -> None:
    report = watch(Miniature(websocket_fault(nothing)), "ws")
    cuts = [item for item in report.connections if item.end is Ending.CUT]
    assert len(cuts) >= ENOUGH
    assert report.cuts == cuts
    assert report.lost == len(cuts)  # all younger than the drain time, whenever the switch was
    assert not report.lossless
    assert report.loss_reasons["ws cut: closed"].count == len(cuts)


def test_a_websocket_that_was_closed_with_a_handshake_is_no_loss() -> None:
    report = watch(Miniature(websocket_fault(farewell)), "ws")
    assert [item.end for item in report.connections][:ENOUGH] == [Ending.CLOSED] * ENOUGH
    assert report.connections[0].reason == "closed by the server with code 1001"
    assert report.cuts == []
    assert report.lossless


def test_a_wrong_echo_is_a_loss_at_any_time() -> None:
    report = watch(Miniature(websocket_fault(wrong_echo)), "ws", [Switch(0.0, "1", "2")])
    wrong = [item for item in report.connections if item.end is Ending.WRONG]
    assert len(wrong) >= ENOUGH
    assert report.lost == len(wrong)


def test_a_refused_websocket_is_a_lost_request() -> None:
    async def refuse(request: Request) -> bool:
        request.writer.write(answer(502, b"no"))
        return True

    async def run() -> Report:
        app = Miniature(refuse)
        async with app.listening():
            load = Load(LoadConfig(url=app.url, app="parcels", workers={"ws": 1}, max_requests=2))
            await load.start()
            await load.finished()
            return await load.stop()

    report = asyncio.run(run())
    assert (report.sent, report.lost_requests, report.connections) == (2, 2, [])
    assert report.loss_reasons["answered 502 in the handshake"].count == 2


def event_fault(*pieces: bytes) -> Fault:
    async def fault(request: Request) -> bool:
        for piece in pieces:
            request.writer.write(piece)
        request.writer.close()
        return True

    return fault


HEAD = event_stream_head("1")
END = chunk(b"event: end\n\n") + chunk(b"")


def test_an_event_stream_that_ends_as_promised_loses_nothing() -> None:
    report = watch(Miniature(), "sse")
    assert report.lossless
    assert {item.end for item in report.connections} == {Ending.CLOSED}
    assert report.answered == report.sent == len(report.connections) >= ENOUGH


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ((HEAD, event(0, "1")), "sse cut: closed inside the answer"),
        ((HEAD, event(0, "1"), chunk(b"")), "sse cut: the answer ended without event: end"),
        ((HEAD, event(0, "1"), event(2, "1"), END), "sse wrong: an event is missing"),
        ((HEAD, event(0, "1"), event(1, "2"), END), "sse wrong: events of two releases on one connection"),
        ((HEAD, event(0, "1"), b"zz\r\n"), "sse wrong: malformed answer: bad chunk size"),
        ((HEAD, event(0, "2"), END), "events of another release than the header says"),
        ((HEAD, END), "no event in the answer"),
        ((answer(502, b"bad gateway"),), "answered 502"),
    ],
)
def test_an_event_stream_that_goes_wrong_is_one_loss(pieces: tuple[bytes, ...], reason: str) -> None:
    async def run() -> Report:
        app = Miniature(event_fault(*pieces))
        async with app.listening():
            load = Load(LoadConfig(url=app.url, app="parcels", workers={"sse": 1}, max_requests=2))
            await load.start()
            await load.finished()
            return await load.stop()

    report = asyncio.run(run())
    assert {name: losses.count for name, losses in report.loss_reasons.items()} == {reason: 2}
    assert (report.sent, report.lost) == (2, 2)


def test_events_may_arrive_in_any_pieces() -> None:
    seen: list[str] = []
    reader = EventReader(seen.append)
    text = b'data: {"n": 4, "release": "a"}\r\n\r\n: comment\n\ndata: {"n": 5, "release": "a"}\n\nevent: end\n\n'
    for byte in text:
        assert not reader.ended
        reader.feed(bytes([byte]))
    assert reader.ended
    assert seen == ["a"]
    with pytest.raises(Lost):
        EventReader(seen.append).feed(b"data: nonsense\n\n")


def report_with(*connections: Connection) -> Report:
    return Report(seed=1, target="", started=0, duration=1, drain=10, settle=0.5, sent=1, connections=[*connections])


def cut(opened: float, closed: float) -> Connection:
    return Connection("ws", "1", opened, closed, Ending.CUT, "reset")


@pytest.mark.parametrize(
    ("connection", "switches", "lost"),
    [
        (cut(0, 100), [50.0], False),  # 50 s after the switch
        (cut(0, 60), [50.0], False),  # exactly the promise
        (cut(0, 59.9), [50.0], True),  # just too early
        (cut(0, 49), [50.0], True),  # before anything was switched
        (cut(51, 100), [50.0], True),  # opened on the new release, which nobody had replaced
        (cut(0, 61), [50.0, 55.0], False),  # the first switch counts: from then on it was on its way out
        (cut(52, 61), [50.0, 55.0], True),
        (cut(0, 100), [], True),
    ],
)
def test_a_cut_is_judged_by_the_first_switch_in_its_life(
    connection: Connection, switches: list[float], lost: bool
) -> None:
    report = report_with(connection).judge([Switch(at, "1", "2") for at in switches])
    assert report.lost == int(lost)
    assert report.cuts == [connection]
    assert report.lossless is not lost


def test_without_the_switches_only_what_is_certain_is_lost() -> None:
    young, old = cut(0, 9.9), cut(0, 10)
    assert report_with(young, old).judge().lost_connections == [young]
