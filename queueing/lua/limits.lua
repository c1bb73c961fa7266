-- What may leave now. A limit "n in a period" is an exact sliding log: the times (ms) of the last n that left; the next
-- may leave a period after the first of them. A departure is logged as late as it may happen, until its settlement tells
-- when it was: a granted message is written within WRITE_WITHIN_MS, or goes back unsent. Grants of a bot are also paced at period / n, so that the next slot is
-- never far: a bare log lets a burst through, then nothing for the rest of the period.
--
-- LIMITS  { bot = { n, period }, chat = { n, period }, group = { n, period } }; n = 0: no limit. period: ms.
local LIMITS = {}
local WRITE_WITHIN_MS = 500 -- limits.WRITE_WITHIN

-- What the pace may catch up when nobody asked in time: ms, but one slot at least.
local CATCH_UP_MS = 50

local function read_limits(text)
  for scope, n, period in string.gmatch(text, '(%a+) (%d+) ([%d.]+)') do
    LIMITS[scope] = { n = tonumber(n), period = tonumber(period) }
  end
end

local function limit_of_chat(lane)
  return string.match(lane, ':[-@]') and LIMITS.group or LIMITS.chat
end

-- The time at which one more may leave by this log; 0: now.
local function free_by_log(scope, limit)
  if limit.n == 0 then return 0 end
  local first = redis.call('ZREVRANGE', log_key(scope), limit.n - 1, limit.n - 1, 'WITHSCORES')[2]
  return first and first + limit.period or 0
end

local function write_log(scope, limit, token)
  if limit.n == 0 then return end
  local key = log_key(scope)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - limit.period)
  redis.call('ZADD', key, now + WRITE_WITHIN_MS, token)
  redis.call('PEXPIRE', key, math.ceil(limit.period) + WRITE_WITHIN_MS)
end

-- Pauses: scope (a lane, a bot, or * for everything) → "until reason", ms. One that a person ordered stands beside it,
-- under "hand scope" → "since reason": it ends by a person alone, who does not end a flood wait with it.
local FOR_EVER = 9e15
local any_paused = redis.call('EXISTS', PAUSED) == 1

-- → until when, ms (0: not paused), and the reason
local function pause_of(scope)
  if not any_paused then return 0 end
  local kept = redis.call('HMGET', PAUSED, scope, 'hand ' .. scope)
  if kept[2] then return FOR_EVER, 'paused' end
  if not kept[1] then return 0 end
  local till, reason = string.match(kept[1], '^(%d+) (.*)$')
  return tonumber(till), reason
end

local function paused_until(scope)
  local till = pause_of(scope)
  if till > 0 and till <= now then redis.call('HDEL', PAUSED, scope) end
  return till
end

-- Two pauses of the same thing combine by the later deadline.
local function pause(scope, till, reason)
  local kept = tonumber(string.match(redis.call('HGET', PAUSED, scope) or '', '^%d+') or 0)
  if kept >= till then return end
  redis.call('HSET', PAUSED, scope, string.format('%.0f %s', till, reason))
  any_paused = true
end

-- How often something had to wait for a limit.
local limited = { chat = 0, group = 0, bot = 0 }

local function note_limit(scope, free_at)
  if free_at > now then limited[scope] = limited[scope] + 1 end
end

local function chat_free_at(lane)
  local free_at = free_by_log('chat:' .. lane, limit_of_chat(lane))
  note_limit(string.match(lane, ':[-@]') and 'group' or 'chat', free_at)
  return math.max(paused_until(lane), free_at)
end

local paces = {} -- bot → the time of its next slot, as far as this script knows

local function pace_free_at(bot)
  if LIMITS.bot.n == 0 then return 0 end
  paces[bot] = paces[bot] or tonumber(redis.call('HGET', PACE, bot) or 0)
  return paces[bot]
end

local function bot_free_at(bot)
  local free_at = math.max(free_by_log('bot:' .. bot, LIMITS.bot), pace_free_at(bot))
  note_limit('bot', free_at)
  return math.max(paused_until('*'), paused_until(bot), free_at)
end

-- A message of this lane is granted, and will leave.
local function count_departure(lane, bot, token)
  write_log('chat:' .. lane, limit_of_chat(lane), token)
  if LIMITS.bot.n == 0 then return end
  write_log('bot:' .. bot, LIMITS.bot, token)
  local slot = LIMITS.bot.period / LIMITS.bot.n
  local earliest = now - math.max(CATCH_UP_MS, slot)
  paces[bot] = math.max(pace_free_at(bot), earliest) + slot
  redis.call('HSET', PACE, bot, string.format('%.3f', paces[bot]))
end

-- It left at this time, ms: earlier than was put down, so its bot may be free earlier, too.
local function correct_departure(lane, bot, token, at)
  if limit_of_chat(lane).n > 0 then redis.call('ZADD', log_key('chat:' .. lane), 'XX', at, token) end
  if LIMITS.bot.n == 0 then return end
  redis.call('ZADD', log_key('bot:' .. bot), 'XX', at, token)
  redis.call('ZADD', BOTS_DUE, 'XX', 'LT', math.max(now, bot_free_at(bot)), bot)
end

-- It did not leave after all: its place in the logs, and its slot, are free again.
local function take_back_departure(lane, bot, token)
  redis.call('ZREM', log_key('chat:' .. lane), token)
  if LIMITS.bot.n == 0 then return end
  redis.call('ZREM', log_key('bot:' .. bot), token)
  paces[bot] = pace_free_at(bot) - LIMITS.bot.period / LIMITS.bot.n
  redis.call('HSET', PACE, bot, string.format('%.3f', paces[bot]))
  redis.call('ZADD', BOTS_DUE, 'XX', now, bot)
end

-- When a lane had its turn last, as far as its log tells; otherwise now.
local function served_at(lane)
  if limit_of_chat(lane).n == 0 then return now end
  return tonumber(redis.call('ZREVRANGE', log_key('chat:' .. lane), 0, 0, 'WITHSCORES')[2] or now)
end
