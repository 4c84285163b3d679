"""Plays the cases of the Autobahn test suite, as a client of the server at a URL.

The suite (PyPI: autobahntestsuite) is a program for Python 2. Its cases are small classes that
send through a client and judge what comes back, and little in them depends on the version: they
are loaded here with a few words of each file changed in memory. The client is that of the
`autobahn` package which the suite is made for. Cases hold bytes in strings, one character for
each; so do they here, and the client turns them into bytes and back.

Cases 12 and 13 are left out: they are about compression (RFC 7692), which the server does not offer.
"""

import collections
import fnmatch
import importlib.machinery
import importlib.util
import pathlib
import re
import sys
import time
import types

import txaio

txaio.use_twisted()

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol, connectWS
from twisted.internet import reactor

PASSED = ("OK", "NON-STRICT", "INFORMATIONAL")

# What the list of cases takes from files that are not loaded. 9.9.1 is in no list.
LEFT_OUT = {
    "case12_x_x": {
        "Case12_X_X": [],
        "Case13_X_X": [],
        "Case12_X_X_CaseSubCategories": {},
        "Case13_X_X_CaseSubCategories": {},
    },
    "case9_9_1": {},
}


def in_python_3(text):
    text = re.sub(r"(?m)^(\s*)print (.*)$", r"\1print(\2)", text)
    text = re.sub(r"(?m)^from (case\w*) import", r"from .\1 import", text)
    for old, new in (
        ("xrange(", "range("),
        ("(object, Case, )", "(Case,)"),
        ("len(self.payload) / self.p.", "len(self.payload) // self.p."),
        ("v.validate(vss[:i])", 'v.validate(vss[:i].encode("latin-1"))'),
        # For descriptions only.
        ("binascii.b2a_hex(", "repr("),
    ):
        text = text.replace(old, new)
    return text


class Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, name):
        text = pathlib.Path(self.path).read_text(encoding="latin-1")
        return compile(in_python_3(text), self.path, "exec")


class Finder:
    """Finds the suite's folder of cases as a package of its own: the rest is not needed."""

    def __init__(self):
        suite = importlib.util.find_spec("autobahntestsuite")
        self.folder = pathlib.Path(suite.submodule_search_locations[0], "case")

    def find_spec(self, name, path=None, target=None):
        package, _, module = name.partition(".")
        if package != "cases":
            return None
        file = str(self.folder / f"{module or '__init__'}.py")
        folders = None if module else [str(self.folder)]
        return importlib.util.spec_from_file_location(
            name, file, loader=Loader(name, file), submodule_search_locations=folders
        )


def load_cases():
    sys.meta_path.insert(0, Finder())
    for name, values in LEFT_OUT.items():
        module = types.ModuleType(f"cases.{name}")
        vars(module).update(values)
        sys.modules[module.__name__] = module
    import cases

    # Pickled, as the suite compares them, equal values need not be equal in Python 3.
    cases.Case.compare = lambda case, one, other: one == other
    return {".".join(case.__name__[len("Case") :].split("_")): case for case in cases.Cases}


def wire(payload):
    return payload.encode("latin-1") if isinstance(payload, str) else payload


class Client(WebSocketClientProtocol):
    """One case's connection, with what cases call and look at beyond the package's own."""

    connectionWasOpen = False

    def connectionMade(self):
        self.txFrameStats = collections.Counter()
        self.case = self.factory.case(self)
        super().connectionMade()

    # Called by cases.

    def sendFrame(self, opcode, payload=b"", payload_len=None, **options):
        payload = wire(payload)
        if payload_len is not None:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        super().sendFrame(opcode=opcode, payload=payload, **options)

    def sendMessage(self, payload, *args, **options):
        super().sendMessage(wire(payload), *args, **options)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(wire(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, wire(reasonUtf8), isReply)

    def continueLater(self, delay, act, tag=None):
        reactor.callLater(delay, lambda: self.state != self.STATE_CLOSED and act())

    def killAfter(self, delay):
        self.continueLater(delay, self.failConnection)

    def closeAfter(self, delay):
        self.continueLater(delay, self.sendClose)

    def enableWirelog(self, on):
        pass

    # Called by the package.

    def logTxFrame(self, header, *rest):
        self.txFrameStats[header.opcode] += 1

    def logRxFrame(self, header, payload):
        pass

    def onOpen(self):
        self.connectionWasOpen = True
        self.case.onOpen()

    def onMessage(self, payload, isBinary):
        self.case.onMessage(payload.decode("latin-1"), isBinary)

    def onPong(self, payload):
        self.case.onPong(payload.decode("latin-1"))

    def onClose(self, wasClean, code, reason):
        self.case.onClose(wasClean, code, reason)

    def connectionLost(self, reason):
        super().connectionLost(reason)
        self.case.onConnectionLost(self.failedByMe)
        self.factory.ended(self.case)


class Connection(WebSocketClientFactory):
    protocol = Client

    def __init__(self, url, case, ended):
        super().__init__(url)
        # A client that fails a connection says so with a Close first.
        self.setProtocolOptions(failByDrop=False)
        self.logFrames = True
        self.case, self.ended = case, ended

    def clientConnectionFailed(self, connector, reason):
        print(reason.getErrorMessage())
        self.ended(None)


class Play:
    """All cases, one after the other."""

    def __init__(self, url, cases):
        self.url, self.left, self.total = url, collections.deque(cases), len(cases)
        self.tally, self.began = collections.Counter(), time.monotonic()

    def next(self):
        if not self.left:
            return reactor.stop()
        self.name, case = self.left.popleft()
        connectWS(Connection(self.url, case, self.ended), timeout=10)

    def ended(self, case):
        if case is None:
            return reactor.stop()
        verdicts = case.behavior, case.behaviorClose
        if all(verdict in PASSED for verdict in verdicts):
            self.tally[case.behavior] += 1
        if verdicts != ("OK", "OK"):
            print(f"{self.name}: {case.behavior}, {case.result} "
                  f"Close: {case.behaviorClose}, {case.resultClose}", flush=True)
        self.next()

    def passed(self):
        passed = sum(self.tally.values())
        kinds = ", ".join(f"{self.tally[kind]} {kind}" for kind in PASSED)
        print(f"{passed} of {self.total} cases passed: {kinds}; "
              f"{time.monotonic() - self.began:.0f} s")
        return 0 < passed == self.total


def main():
    url, *patterns = sys.argv[1:]
    cases = load_cases().items()
    chosen = [(name, case) for name, case in cases
              if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns or ["*"])]
    play = Play(url, chosen)
    reactor.callWhenRunning(play.next)
    reactor.run()
    sys.exit(not play.passed())


main()
