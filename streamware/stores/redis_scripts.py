"""What Redis does in one step for us: everything about a log but the plain append, and idempotency keys.

Each script touches the keys of one stream, or one key, so that each can run on a cluster. They are loaded into a server
when a connection to it is made, and called by their hash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from .redis_pipe import pack


@dataclass(frozen=True)
class Script:
    """One script. ``text`` is Lua 5.1, as every Redis and Valkey has it."""

    text: bytes
    sha: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode())

    def call(self, keys: tuple[bytes, ...], *words: bytes) -> bytes:
        return pack(b"EVALSHA", self.sha, b"%d" % len(keys), *keys, *words)


#: KEYS: log. Answers {last}, or {last, outcome, unfinished} once it has ended, or nil where there is none.
TOP = Script(b"""
local top = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not top then return nil end
if top[1] ~= '2-0' then return {tonumber(string.sub(top[1], 3))} end
local said = top[2]
return {tonumber(said[2]), said[4], said[6]}
""")

#: KEYS: log, meta. ARGV: first, last, events ('' for none), head ('' for none), worker, gap (1 or 0), outcome ('' for
#: none), unfinished (1 or 0), in ms how long a running log is kept, an ended one, and a tombstone, the idempotency
#: key's name, how to publish, where, and up to how many bytes with the events. Answers {verdict, top, outcome}. What
#: becomes of the log is published from within: whoever listens hears of its end before anything that comes behind it.
STEP = Script(b"""
local log, meta = KEYS[1], KEYS[2]
local first, last = tonumber(ARGV[1]), tonumber(ARGV[2])
local events, head, worker, gap, outcome, unfinished = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
local seq = 0
if top then
    if top[1] == '2-0' then return {'fenced', tonumber(top[2][2]), top[2][4]} end
    seq = tonumber(string.sub(top[1], 3))
else
    local was = redis.call('HMGET', meta, 'o', 'l')
    if was[1] then return {'fenced', tonumber(was[2]), was[1]} end
    if head == '' then return {'lost', 0, ''} end
end
if first > seq + 1 and gap ~= '1' then return {'behind', seq, ''} end
if not top then
    if events == '' then events, last = '\\144', first - 1 end
    redis.call('HSET', meta, 'h', head, 'w', worker, 'k', ARGV[12])
end
if events ~= '' and (last > seq or not top) then
    redis.call('XADD', log, '1-' .. last, 'd', events)
    seq = last
    if #events > 1 then
        redis.call(ARGV[13], ARGV[14], last .. ' ' .. (#events <= tonumber(ARGV[15]) and events or ''))
    end
end
if outcome ~= '' then
    redis.call('XADD', log, '2-0', 'l', seq, 'o', outcome, 'u', unfinished)
    redis.call('HSET', meta, 'o', outcome, 'l', seq, 'u', unfinished)
    redis.call(ARGV[13], ARGV[14], seq .. '!' .. unfinished .. outcome)
    redis.call('PEXPIRE', log, ARGV[10])
    redis.call('PEXPIRE', meta, ARGV[11])
else
    redis.call('PEXPIRE', log, ARGV[9])
    redis.call('PEXPIRE', meta, ARGV[9])
end
return {'taken', seq, ''}
""")

#: KEYS: claim. ARGV: fingerprint, stream, worker, ms to live. Answers {won, fingerprint, stream, worker, settled}.
CLAIM = Script(b"""
local held = redis.call('HMGET', KEYS[1], 'f', 's', 'w', 'd')
if held[2] and held[2] ~= ARGV[2] then
    return {0, held[1], held[2], held[3], held[4]}
end
if redis.call('HEXISTS', KEYS[1], 'x' .. ARGV[2]) == 1 then return {false} end
if held[4] ~= '1' then
    redis.call('HSET', KEYS[1], 'f', ARGV[1], 's', ARGV[2], 'w', ARGV[3], 'd', '0')
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return {1, ARGV[1], ARGV[2], ARGV[3], '0'}
""")

#: KEYS: claim. ARGV: stream, settled (1 or 0), ms to live. Only the holder's counts; another that is not settled may be
#: a claim that has not come yet, so it is noted for a while that it has been given back.
SETTLE = Script(b"""
if redis.call('HGET', KEYS[1], 's') ~= ARGV[1] then
    if ARGV[2] == '1' or ARGV[3] == '0' then return 0 end
    redis.call('HSET', KEYS[1], 'x' .. ARGV[1], '1')
    if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
    return 0
end
if ARGV[2] ~= '1' then return redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'd', '1')
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
""")

#: KEYS: claim. ARGV: stream, fingerprint, worker, ms to live. The key of a log that is made, or made again: a server
#: that has lost the one has lost the other. Whoever has taken it meanwhile, and has not settled, comes second.
KEEP = Script(b"""
local held = redis.call('HMGET', KEYS[1], 's', 'd')
if not held[1] or (held[1] ~= ARGV[1] and held[2] ~= '1') then
    redis.call('HSET', KEYS[1], 'f', ARGV[2], 's', ARGV[1], 'w', ARGV[3], 'd', '1')
elseif held[1] ~= ARGV[1] then
    return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[4])
""")

SCRIPTS = (TOP, STEP, CLAIM, SETTLE, KEEP)


def load() -> tuple[bytes, int]:
    """Commands that make a server know the scripts, and how many replies they have."""
    return b"".join(pack(b"SCRIPT", b"LOAD", script.text) for script in SCRIPTS), len(SCRIPTS)
