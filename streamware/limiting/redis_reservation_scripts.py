"""What Redis does for reservations in one step each: reserving, extending, settling.

A reservation has a record beside its counters: a hash of what was taken in which windows, so that settling needs to say
no more than what was used in all. Once settled, a word stands in its place for a while: whatever of it was on its way,
and comes behind, does nothing.
"""

from __future__ import annotations

from ..stores.redis_scripts import Script
from .redis_scripts import COUNTERS

# KEYS: counters, and the record. ARGV[3]: how long it is kept, in ms.
_RECORD = (
    COUNTERS
    + b"""
local n = tonumber(ARGV[1])
local record = KEYS[n + 1]
local function note(counters, amount)
    local windows = {}
    for i = 1, n do windows[i] = string.format('%.0f', counters[i].start) end
    local name = table.concat(windows, ':')
    redis.call('HINCRBY', record, name, string.format('%.0f', amount))
    redis.call('HSET', record, 'newest', name)
    redis.call('PEXPIRE', record, ARGV[3])
end
local function settled() return redis.call('TYPE', record).ok == 'string' end
local function answer(first, counters)
    local told = {first, 0, now}
    for i = 1, n do
        local c = counters[i]
        told[3 * i + 1], told[3 * i + 2], told[3 * i + 3] = c.start, c.current, c.previous
    end
    return told
end
"""
)

#: ARGV: how many counters; '1' to note it even where it does not fit; the life; ''; for each counter its cost. Answers
#: {allowed, 0, now, start, current, previous, …}.
RESERVE = Script(
    _RECORD
    + b"""
local fits, cost, counters = 1, 0, {}
for i = 1, n do
    local c = read(KEYS[i], 1 + 4 * i)
    counters[i], cost = c, c.own
    if c.own > 0 and c.used + c.own > c.amount then fits = 0 end
end
if settled() then return answer(0, counters) end
if fits == 1 then
    for i = 1, n do
        local c = counters[i]
        c.current = c.current + cost
        if cost > 0 then write(c) end
    end
    note(counters, cost)
elseif ARGV[2] == '1' then
    note(counters, 0)
end
return answer(fits, counters)
"""
)

#: ARGV: how many counters; at most so much; the life; the share; for each counter 0. Answers {granted, 0, now, …}.
EXTEND = Script(
    _RECORD
    + b"""
local most, share = tonumber(ARGV[2]), tonumber(ARGV[4])
local left = most * share
local counters = {}
for i = 1, n do
    local c = read(KEYS[i], 1 + 4 * i)
    counters[i] = c
    left = math.min(left, math.max(0, c.amount - c.used))
end
if settled() then return answer(0, counters) end
local granted = math.min(most, math.ceil(left / share))
if granted > 0 then
    for i = 1, n do
        counters[i].current = counters[i].current + granted
        write(counters[i])
    end
end
note(counters, granted)
return answer(granted, counters)
"""
)

#: ARGV: how many counters; what was used in all; how long the word is kept that it was settled, in ms; ''; for each
#: counter 0. What is too much goes back into the windows that it was taken in, newest first; what is missing is
#: charged to the newest. Answers whether there was anything to settle.
SETTLE = Script(
    _RECORD
    + b"""
if settled() then return 0 end
local held = redis.call('HGETALL', record)
redis.call('DEL', record)
redis.call('SET', record, 'settled', 'PX', ARGV[3])
if #held == 0 then return 0 end
local parts, newest, taken = {}, '', 0
for i = 1, #held, 2 do
    if held[i] == 'newest' then newest = held[i + 1]
    else
        parts[#parts + 1] = {held[i], tonumber(held[i + 1])}
        taken = taken + tonumber(held[i + 1])
    end
end
table.sort(parts, function(a, b)
    if a[1] == newest then return b[1] ~= newest end
    return b[1] ~= newest and a[1] > b[1]
end)
local counters = {}
for i = 1, n do counters[i] = read(KEYS[i], 1 + 4 * i) end
local function correct(windows, amount)
    local i = 0
    for start in string.gmatch(windows, '%d+') do
        i = i + 1
        local c, window = counters[i], tonumber(start)
        if c.is_new and amount > 0 and now < window + c.width then c.start, c.previous, c.is_new = window, 0, false end
        if c.start == window then c.current, c.changed = math.max(0, c.current + amount), true
        elseif c.start == window + c.width and not c.fixed then
            c.previous, c.changed = math.max(0, c.previous + amount), true
        end
    end
end
local more = tonumber(ARGV[2]) - taken
if more > 0 then correct(newest, more) end
for _, part in ipairs(parts) do
    if more >= 0 then break end
    local back = math.min(part[2], -more)
    if back > 0 then correct(part[1], -back) end
    more = more + back
end
for i = 1, n do if counters[i].changed then write(counters[i]) end end
return 1
"""
)

RESERVATION_SCRIPTS = (RESERVE, EXTEND, SETTLE)
