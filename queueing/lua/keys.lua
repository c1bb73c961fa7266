-- Every key that a script touches. The data model is described in queueing/keys.py; a test holds the two together.
-- A library's functions are made once and run for every call: whatever is known of one call is set in here, by `start`.
local at_start, start
do -- a script has room for 200 local names
  local actions = {}
  function at_start(action) actions[#actions + 1] = action end

  function start(keys)
    for i = 1, #actions do actions[i](keys) end
  end
end

-- keys[1]: the front door. The hash tag puts all other keys into its cluster slot: its name or, where that has a tag
-- already, as `{telegram_messages}:updates` has, that one.
local FRONT, P
local HANDOFF, DOORS, LANED_BULK, SCHEDULED, BOTS, BOTS_DUE, SERVED, DUE, PACE, PAUSED, OUTAGES, PROCESSES, IDLE,
  ALIASES, ALIASES_INDEX, MERGING, TRIES, OPEN, TAILS, DEAD, DEAD_INDEX, TOKENS, NEW_TOKENS, TOTALS, CLOCK, ENDS
at_start(function(keys)
  if FRONT == keys[1] then return end
  FRONT = keys[1]
  P = (string.find(FRONT, '{[^}]') and FRONT or '{' .. FRONT .. '}') .. ':'
  HANDOFF = P .. 'handoff'
  DOORS = P .. 'doors'
  LANED_BULK = P .. 'laned:bulk'
  SCHEDULED = P .. 'scheduled'
  BOTS = P .. 'bots'
  BOTS_DUE = P .. 'bots:due'
  SERVED = P .. 'bots:served'
  DUE = P .. 'due'
  PACE = P .. 'pace'
  PAUSED = P .. 'paused'
  OUTAGES = P .. 'outages'
  PROCESSES = P .. 'processes'
  IDLE = P .. 'idle'
  ALIASES = P .. 'aliases'
  ALIASES_INDEX = P .. 'aliases:index'
  MERGING = P .. 'merging'
  TRIES = P .. 'tries'
  OPEN = P .. 'open'
  TAILS = P .. 'tails'
  DEAD = P .. 'dead'
  DEAD_INDEX = P .. 'dead:index'
  TOKENS = P .. 'tokens'
  NEW_TOKENS = P .. 'tokens:new'
  TOTALS = P .. 'totals'
  CLOCK = P .. 'clock'
  -- A channel: ids of awaited messages that ended.
  ENDS = P .. 'ends'
end)

-- priority: i, n or b. A lane is "bot:chat". An account has a budget of its own: a bot, or "bot$" for what it pays for.
local function bulk_key(bot) return P .. 'bulk:' .. bot end
local function list_key(priority, lane) return P .. 'lane:' .. priority .. ':' .. lane end
local function merged_key(priority, lane) return P .. 'merged:' .. priority .. ':' .. lane end
local function ready_key(priority, account) return P .. 'ready:' .. priority .. ':' .. account end
local function log_key(account) return P .. 'log:bot:' .. account end
local function left_key(lane) return P .. 'left:' .. lane end
local function floods_key(bot) return P .. 'floods:' .. bot end
local function failing_key(bot) return P .. 'failing:' .. bot end
local function held_key(process) return P .. 'held:' .. process end
local function status_key(id) return P .. 'msg:' .. id end
local function dedup_key(bot, key) return P .. 'dedup:' .. bot .. ':' .. key end
local function ended_key(id) return P .. 'ended:' .. id end
local function group_key(name) return P .. 'group:' .. name end
local function operation_key(id) return P .. 'op:' .. id end

local PRIORITIES = { 'i', 'n', 'b' }

-- An element that is no message: it wakes a process that waits at the front door.
local BELL = 'telequeue:bell'

-- wall: milliseconds since 1970 by the server's clock: what people mean by a time. now: the same without the jumps of
-- that clock, which all processes share: it never goes back. See clock.lua.
-- last_wall: what `wall` was when anybody was heard last; nil: nobody was yet.
local wall, skew, seen, now, last_wall
at_start(function()
  local clock = redis.call('TIME')
  wall = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local kept = redis.call('HMGET', CLOCK, 'skew', 'seen', 'wall')
  skew, seen, last_wall = tonumber(kept[1] or 0), tonumber(kept[2] or 0), kept[3] and tonumber(kept[3])
  now = math.max(wall + skew, seen)
end)

-- These are asked for the same again and again.
local bot_of_lane, bot_of_account, text_of
do -- a script has room for 200 local names
  local bots, texts
  at_start(function() bots, texts = {}, {} end)

  function bot_of_lane(lane)
    local bot = bots[lane]
    if not bot then
      bot = string.match(lane, '^([^:]*):')
      bots[lane] = bot
    end
    return bot
  end

  function bot_of_account(account)
    local bot = bots[account]
    if not bot then
      bot = string.gsub(account, '%$$', '')
      bots[account] = bot
    end
    return bot
  end

  -- A time as a command takes it: to make text of a number takes as long as a command.
  function text_of(ms)
    local text = texts[ms]
    if not text then
      text = string.format('%.17g', ms)
      texts[ms] = text
    end
    return text
  end
end

local function account_of(bot, paid) return paid and bot .. '$' or bot end

-- Both accounts of a bot are looked at again at this time, if they wait.
local function wake_bot(bot, at) redis.call('ZADD', BOTS_DUE, 'XX', at, bot, at, bot .. '$') end

-- Counts are gathered while a script runs, and written at its end.
local bulk_counts
local count, count_laned, has_laned, count_in_group, write_counts
do -- a script has room for 200 local names
  local LANED = { i = 'laned:i', n = 'laned:n', b = 'laned:b' }
  local counts, group_counts, laned
  at_start(function() counts, group_counts, bulk_counts, laned = {}, {}, {}, nil end)

  function count(field, by) counts[field] = (counts[field] or 0) + by end

  -- Whether any lane may have messages of this priority. (A count that is wrong, and below 0, says so: look.)
  function has_laned(priority)
    if not laned then
      local i, n, b = unpack(redis.call('HMGET', TOTALS, LANED.i, LANED.n, LANED.b))
      laned = { i = tonumber(i or 0), n = tonumber(n or 0), b = tonumber(b or 0) }
    end
    return laned[priority] + (counts[LANED[priority]] or 0) ~= 0
  end

  -- Messages that come into lanes (by: 1) or leave them (-1); of bulk, for each bot, too.
  function count_laned(lane, priority, by)
    count(LANED[priority], by)
    if priority ~= 'b' then return end
    local bot = bot_of_lane(lane)
    bulk_counts[bot] = (bulk_counts[bot] or 0) + by
  end

  -- What became of a message of a group.
  function count_in_group(name, field, by)
    local fields = group_counts[name] or {}
    group_counts[name] = fields
    fields[field] = (fields[field] or 0) + by
  end

  function write_counts()
    for field, by in pairs(counts) do
      if by ~= 0 then redis.call('HINCRBY', TOTALS, field, by) end
    end
    for bot, by in pairs(bulk_counts) do
      if by ~= 0 and redis.call('HINCRBY', LANED_BULK, bot, by) <= 0 then redis.call('HDEL', LANED_BULK, bot) end
    end
    for name, fields in pairs(group_counts) do
      local key = group_key(name)
      for field, by in pairs(fields) do
        if redis.call('HINCRBY', key, field, by) <= 0 then redis.call('HDEL', key, field) end
      end
      redis.call('EXPIRE', key, 30 * 24 * 3600)
    end
  end
end
