-- A lane: for each priority a list of entries, whose head stays where it is until it is settled. A lane with entries is
-- in exactly one of: its bot's `ready` sets, DUE, or a process's `held` hash; an empty one is in none.
-- An entry: "id flags accepted\n" and the element, or "id flags accepted expires\n". Times: ms. flags: - or any of
-- t (tracked), h (held in doubt), r (sent again in doubt).

-- A lane that was empty counts as served this long ago: it goes before the busy ones, but not before those that have
-- waited for longer than this, so that a stream of new lanes starves nobody.
local FRESH_MS = 60000

local function parse(entry)
  local id, flags, accepted, expires, at = string.match(entry, '^(%S+) (%S+) (%d+) ?(%d*)\n()')
  local function has(flag) return string.find(flags, flag, 1, true) ~= nil end
  return {
    id = id, tracked = has('t'), held = has('h'), resent = has('r'),
    accepted = tonumber(accepted), expires = tonumber(expires), element = string.sub(entry, at),
  }
end

local function head(priority, lane)
  local entry = redis.call('LINDEX', list_key(priority, lane), 0)
  return entry and parse(entry)
end

-- The tries of a head, by "priority lane": "attempts takeovers until\n", then a line for each: "ms reason error",
-- tab-separated. until: ms, before which it is not tried again.
local TRIES_KEPT = 4000 -- bytes; the oldest lines go first
local any_tried = redis.call('EXISTS', TRIES) == 1

local function tries(priority, lane)
  local kept = any_tried and redis.call('HGET', TRIES, priority .. ' ' .. lane)
  if not kept then return 0, 0, 0, '' end
  local attempts, takeovers, till, lines = string.match(kept, '^(%d+) (%d+) (%d+)\n(.*)$')
  return tonumber(attempts), tonumber(takeovers), tonumber(till), lines
end

-- When a lane had its turn last, as far as its log and its tries tell; otherwise now.
local function served_at(lane)
  local served = limit_of_chat(lane).n > 0 and redis.call('ZREVRANGE', log_key('chat:' .. lane), 0, 0, 'WITHSCORES')[2]
  served = tonumber(served or 0)
  for _, priority in ipairs(PRIORITIES) do
    local _, _, _, lines = tries(priority, lane)
    served = math.max(served, tonumber(string.match(lines, '(%d+)\t[^\n]*\n$') or 0))
  end
  return served > 0 and served or now
end

-- try: { counts, taken_over, till, reason, error }. Returns the attempts so far.
local function note_try(priority, lane, try)
  local attempts, takeovers, _, lines = tries(priority, lane)
  lines = lines .. wall .. '\t' .. try.reason .. '\t' .. try.error .. '\n'
  while #lines > TRIES_KEPT and string.find(lines, '\n.') do
    lines = string.sub(lines, string.find(lines, '\n', 1, true) + 1)
  end
  attempts, takeovers = attempts + (try.counts or 0), takeovers + (try.taken_over or 0)
  -- One that expires first holds its lane no longer than that.
  local till = math.min(try.till or 0, (head(priority, lane).expires or math.huge) + skew)
  local line = string.format('%d %d %.0f\n', attempts, takeovers, till)
  redis.call('HSET', TRIES, priority .. ' ' .. lane, line .. lines)
  any_tried = true
  return attempts
end

local function remove_head(priority, lane)
  if any_tried then redis.call('HDEL', TRIES, priority .. ' ' .. lane) end
  count('laned:' .. priority, -1)
  return parse(redis.call('LPOP', list_key(priority, lane)))
end

local blocked = {} -- bot → whether it is in BOTS_DUE, as far as this script knows

local function make_ready(lane, priority, served)
  local bot = bot_of_lane(lane)
  redis.call('ZADD', ready_key(priority, bot), served, lane)
  if blocked[bot] == nil then blocked[bot] = redis.call('ZSCORE', BOTS_DUE, bot) and true end
  if not blocked[bot] then redis.call('ZADD', BOTS, 'NX', served, bot) end
end

-- Puts a lane that is nowhere to where it belongs. served: when it had its turn last, ms. → the priority for which it is
-- ready now; nil: for none. One whose retry has to wait may be ready for a lower priority, and is in DUE as well.
local function place(lane, served)
  local first, earliest
  for _, priority in ipairs(PRIORITIES) do
    if redis.call('EXISTS', list_key(priority, lane)) == 1 then
      local _, _, till = tries(priority, lane)
      if till <= now then
        first = priority
        break
      end
      earliest = math.min(earliest or till, till)
    end
  end
  if not first and not earliest then return end
  local chat_free = chat_free_at(lane)
  if first and chat_free <= now then
    make_ready(lane, first, served)
    if earliest then redis.call('ZADD', DUE, earliest, lane) end
    return first
  end
  redis.call('ZADD', DUE, first and chat_free or math.max(chat_free, earliest), lane)
end

local function leave_ready(lane)
  local bot = bot_of_lane(lane)
  for _, priority in ipairs(PRIORITIES) do redis.call('ZREM', ready_key(priority, bot), lane) end
end

-- A new message of a lane that has others, of other priorities: if it goes before them, the lane may be earlier in turn.
local function upgrade(lane, priority)
  local bot = bot_of_lane(lane)
  local below = false
  for _, lower in ipairs(PRIORITIES) do
    local served = below and redis.call('ZSCORE', ready_key(lower, bot), lane)
    if served then
      redis.call('ZREM', ready_key(lower, bot), lane)
      return make_ready(lane, priority, served)
    end
    below = below or lower == priority
  end
  if redis.call('ZREM', DUE, lane) == 1 then
    leave_ready(lane)
    place(lane, now - FRESH_MS)
  end
end

local function push(lane, priority, entry)
  count('laned:' .. priority, 1)
  if redis.call('RPUSH', list_key(priority, lane), entry) > 1 then return end
  local others = {}
  for _, other in ipairs(PRIORITIES) do
    if other ~= priority then others[#others + 1] = list_key(other, lane) end
  end
  if redis.call('EXISTS', unpack(others)) == 0 then
    place(lane, now - FRESH_MS)
  else
    upgrade(lane, priority)
  end
end
