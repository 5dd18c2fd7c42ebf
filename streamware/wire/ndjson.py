from .sse import Piece
class LineFramer:
    def __init__(self, max_event_bytes): self.buf = b""
    def feed(self, data):
        *ls, self.buf = (self.buf + data).split(b"\n")
        return [l + b"\n" for l in ls if l.strip()]
    @property
    def pending(self): return self.buf
    def finish(self): b, self.buf = self.buf, b""; return b
