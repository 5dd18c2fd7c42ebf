"""What Redis does for limits in one step each: taking, correcting, renewing.

All keys of a call carry the same hash tag, so that each script runs on a cluster. A counter is a text
``start:current:previous`` under a key that expires when it counts no more; leases are a sorted set by expiry. The clock
is the server's own. The arithmetic of a window is that of ``window.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..stores.redis_pipe import pack
from ..stores.redis_scripts import Script

# The counters of KEYS[1..n], in the window of now. ARGV holds for each, from ``at`` on: amount, width in ms, fixed (1
# or 0), and a number of the script's own.
COUNTERS = b"""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function write(c)
    local life = c.start + (c.fixed and 1 or 2) * c.width - now
    redis.call('SET', c.key, string.format('%.0f:%.0f:%.0f', c.start, c.current, c.previous), 'PX',
               math.max(1000, life))
end
local function read(key, at)
    local c = {key=key, amount=tonumber(ARGV[at]), width=tonumber(ARGV[at + 1]), fixed=ARGV[at + 2] == '1',
               own=tonumber(ARGV[at + 3]), current=0, previous=0, is_new=true}
    c.start = now - 2 * c.width
    local held = redis.call('GET', key)
    if held then
        local s, n, p = string.match(held, '^(%d+):(%d+):(%d+)$')
        c.start, c.current, c.previous, c.is_new = tonumber(s), tonumber(n), tonumber(p), false
    end
    -- A clock that was set back, or that of a replica which took over, is at the start of the window for so long; where
    -- it is behind by more than a window, that begins anew.
    if now < c.start - c.width then
        c.start = c.fixed and now - now % c.width or now
        write(c)
    end
    if now < c.start then c.elapsed = 0 else c.elapsed = now - c.start end
    if c.elapsed >= c.width then
        if c.fixed then c.start, c.previous = now - now % c.width, 0
        elseif c.elapsed >= 2 * c.width then c.start, c.previous = now, 0
        else c.start, c.previous = c.start + c.width, c.current end
        c.current, c.elapsed = 0, now - c.start
    end
    c.used = c.current
    if not c.fixed then c.used = c.current + math.floor(c.previous * (c.width - c.elapsed) / c.width) end
    return c
end
"""

# Leases are kept as long as the longest of them lives.
LIFE = b"""
local function keep(leases, life)
    if redis.call('PTTL', leases) < tonumber(life) then redis.call('PEXPIRE', leases, life) end
end
"""

#: KEYS: counters, and leases where one is wanted. ARGV: how many counters; the lease's member, at most so many, its ms
#: ('' for none); for each counter its cost. Answers {allowed, full, now, start, current, previous, …}.
TAKE = Script(
    COUNTERS
    + LIFE
    + b"""
local n, fits, full = tonumber(ARGV[1]), 1, 0
local counters = {}
for i = 1, n do
    local c = read(KEYS[i], 1 + 4 * i)
    counters[i] = c
    if c.own > 0 and c.used + c.own > c.amount then fits = 0 end
end
if fits == 1 and ARGV[2] ~= '' then
    local leases = KEYS[n + 1]
    redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
    if redis.call('ZCARD', leases) < tonumber(ARGV[3]) or redis.call('ZSCORE', leases, ARGV[2]) then
        redis.call('ZADD', leases, now + ARGV[4], ARGV[2])
        keep(leases, ARGV[4])
    else
        fits, full = 0, 1
        -- What a clock that was set back since has left would count for as long again: it has a lease's time from here.
        for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, now + 4 * ARGV[4], '+inf')) do
            redis.call('ZADD', leases, now + ARGV[4], member)
        end
    end
end
local answer = {fits, full, now}
for i = 1, n do
    local c = counters[i]
    if fits == 1 and c.own > 0 then
        c.current = c.current + c.own
        write(c)
    end
    answer[3 * i + 1], answer[3 * i + 2], answer[3 * i + 3] = c.start, c.current, c.previous
end
return answer
"""
)

#: KEYS: counters. ARGV: how many; at most so much; the share; ''; for each counter 0. Answers {granted, 0, now, …}, the
#: rest as above.
TAKE_PART = Script(
    COUNTERS
    + b"""
local n, most, share = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local left = most * share
local counters = {}
for i = 1, n do
    local c = read(KEYS[i], 1 + 4 * i)
    counters[i] = c
    left = math.min(left, math.max(0, c.amount - c.used))
end
local granted = math.min(most, math.ceil(left / share))
local answer = {granted, 0, now}
for i = 1, n do
    local c = counters[i]
    if granted > 0 then
        c.current = c.current + granted
        write(c)
    end
    answer[3 * i + 1], answer[3 * i + 2], answer[3 * i + 3] = c.start, c.current, c.previous
end
return answer
"""
)

#: KEYS: counters, and one for the correction's id. ARGV: how many counters; how long the id is remembered, in ms; '';
#: ''; for each counter the correction; and then the window of each. Answers whether it counted.
ADD = Script(
    COUNTERS
    + b"""
local n = tonumber(ARGV[1])
if not redis.call('SET', KEYS[n + 1], '1', 'NX', 'PX', ARGV[2]) then return 0 end
for i = 1, n do
    local c = read(KEYS[i], 1 + 4 * i)
    local window = tonumber(ARGV[4 + 4 * n + i])
    if c.is_new and c.own > 0 and now < window + c.width then c.start, c.previous = window, 0 end
    if c.start == window then
        c.current = math.max(0, c.current + c.own)
        write(c)
    elseif c.start == window + c.width and not c.fixed then
        c.previous = math.max(0, c.previous + c.own)
        write(c)
    end
end
return 1
"""
)

#: KEYS: leases. ARGV: ms, and the members. Answers how many of them had lapsed.
RENEW = Script(
    LIFE
    + b"""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local lapsed = 0
for i = 2, #ARGV do
    local held = redis.call('ZSCORE', KEYS[1], ARGV[i])
    if not held or tonumber(held) <= now then lapsed = lapsed + 1 end
    redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i])
end
keep(KEYS[1], ARGV[1])
return lapsed
"""
)

SCRIPTS = (TAKE, TAKE_PART, ADD, RENEW)


def load(scripts: Sequence[Script]) -> tuple[bytes, int]:
    """Commands that make a server know the scripts, and how many replies they have."""
    return b"".join(pack(b"SCRIPT", b"LOAD", script.text) for script in scripts), len(scripts)
