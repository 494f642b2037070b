r"""The Lua scripts: each changes queues and claims in one step that nothing can interrupt.

A claim is a field of its owner's hash, its tag: the list it came from, a zero byte, and the item as it was. What goes back
is marked in its text, `{"siftbell-failures":2,...`, which leaves it the JSON it was: nothing is decoded in the server.

Each script begins with a command that Redis allows when it is full (RPOP, HDEL): after that it allows the rest as
well, so that a Redis that has reached its `maxmemory` can be emptied, and its owners do not look dead.
"""

from typing import Final

CLAIM: Final = """
-- KEYS: owners, claims, then the lists of each queue. ARGV: owner, 1 if registered, first tag, most items, lists a queue
-- Gives nil when the owner has been declared gone; else, for each item, the number of its list and the item.
if ARGV[2] == '1' and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return false end
local tag, room, lists = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local found, waiting = {}, {}
for first = 3, #KEYS, lists do waiting[#waiting + 1] = first end
while room > 0 and #waiting > 0 do
  local still = {}
  for _, first in ipairs(waiting) do
    for key = first, room > 0 and first + lists - 1 or 0 do
      local item = redis.pcall('RPOP', KEYS[key])  -- an error where the key is no list
      if type(item) == 'string' then
        redis.call('HSET', KEYS[2], tag, KEYS[key] .. '\\0' .. item)
        found[#found + 1], found[#found + 2] = key - 3, item
        tag, room, still[#still + 1] = tag + 1, room - 1, first
        break
      end
    end
  end
  waiting = still
end
if #found > 0 then redis.call('HSETNX', KEYS[1], ARGV[1], 0) end
return found
"""

_GIVE_BACK: Final = """
local function marked(item, failures)
  local before, rest = string.match(item, '^{"siftbell%-failures":(%d+),(.*)$')
  if not rest then before, rest = 0, string.match(item, '^{(%s*".*)$') end
  if not rest then return item end
  return '{"siftbell-failures":' .. (before + failures) .. ',' .. rest
end

local function give_back(claims, tag, failures, instead)
  local claim = redis.call('HGET', claims, tag)
  if not claim then return 0 end
  redis.call('HDEL', claims, tag)
  local zero = string.find(claim, '\\0', 1, true)
  local item = string.sub(claim, zero + 1)
  if instead then redis.call('LPUSH', instead, item)
  else redis.call('RPUSH', string.sub(claim, 1, zero - 1), failures and marked(item, failures) or item) end
  return 1
end

local function give_back_all(claims, failures)
  local tags = redis.call('HKEYS', claims)
  table.sort(tags, function(one, other) return tonumber(one) > tonumber(other) end)
  for _, tag in ipairs(tags) do give_back(claims, tag, failures) end
  return #tags
end
"""

SETTLE: Final = f"""{_GIVE_BACK}
-- KEYS: claims, unreadable. ARGV: how, tags, the youngest first. Gives how many of them were still claimed.
local settled = 0
for i = 2, #ARGV do
  if ARGV[1] == 'done' then settled = settled + redis.call('HDEL', KEYS[1], ARGV[i])
  elseif ARGV[1] == 'aside' then settled = settled + give_back(KEYS[1], ARGV[i], 0, KEYS[2])
  elseif ARGV[1] == 'unseen' then settled = settled + give_back(KEYS[1], ARGV[i])
  else settled = settled + give_back(KEYS[1], ARGV[i], ARGV[1] == 'failed' and 1 or 0) end
end
return settled
"""

LEAVE: Final = f"""{_GIVE_BACK}
-- KEYS: owners, claims. ARGV: owner. Gives how many claims went back.
redis.call('HDEL', KEYS[1], ARGV[1])
return give_back_all(KEYS[2], 0)
"""

BURY: Final = f"""{_GIVE_BACK}
-- KEYS: owners, claims. ARGV: owner, its last sign of life. Gives how many claims went back, -1 when the owner lives.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return -1 end
redis.call('HDEL', KEYS[1], ARGV[1])
return give_back_all(KEYS[2], 1)
"""

BEAT: Final = """
-- KEYS: owners. ARGV: owner. Gives 0 when it has been declared gone.
redis.call('HDEL', KEYS[1], '')
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
return redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
"""
