-- What may leave now. A limit "n in a period" is an exact sliding log: the times (ms) of the last n that left; the next
-- may leave a period after the first of them. Grants of a bot are also paced at period / n, so that the next slot is
-- never far: a bare log lets a burst through, then nothing for the rest of the period.
--
-- LIMITS  { bot = { n, period }, chat = { n, period }, group = { n, period } }; n = 0: no limit. period: ms.
local LIMITS = {}

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
  local first = redis.call('LINDEX', log_key(scope), -limit.n)
  return first and first + limit.period or 0
end

local function write_log(scope, limit)
  if limit.n == 0 then return end
  local key = log_key(scope)
  redis.call('RPUSH', key, now)
  redis.call('LTRIM', key, -limit.n, -1)
  redis.call('PEXPIRE', key, math.ceil(limit.period))
end

-- Pauses: scope (a lane, a bot, or * for everything) → "until reason"; until: ms, or 0 for "until somebody resumes it".
local FOR_EVER = 9e15
local any_paused = redis.call('EXISTS', PAUSED) == 1

local function paused_until(scope)
  local kept = any_paused and redis.call('HGET', PAUSED, scope)
  if not kept then return 0 end
  local till = tonumber(string.match(kept, '^(%d+)'))
  if till == 0 then return FOR_EVER end
  if till <= now then redis.call('HDEL', PAUSED, scope) end
  return till
end

-- Two pauses of the same thing combine by the later deadline; one that a person ordered ends by a person alone.
local function pause(scope, till, reason)
  if till ~= 0 and paused_until(scope) >= till then return end
  redis.call('HSET', PAUSED, scope, string.format('%.0f %s', till, reason))
  any_paused = true
end

local function chat_free_at(lane)
  return math.max(paused_until(lane), free_by_log('chat:' .. lane, limit_of_chat(lane)))
end

local function pace_free_at(bot)
  if LIMITS.bot.n == 0 then return 0 end
  return tonumber(redis.call('HGET', PACE, bot) or 0)
end

local function bot_free_at(bot)
  return math.max(paused_until('*'), paused_until(bot), free_by_log('bot:' .. bot, LIMITS.bot), pace_free_at(bot))
end

-- A message of this lane leaves.
local function count_departure(lane, bot)
  write_log('chat:' .. lane, limit_of_chat(lane))
  if LIMITS.bot.n == 0 then return end
  write_log('bot:' .. bot, LIMITS.bot)
  local slot = LIMITS.bot.period / LIMITS.bot.n
  local earliest = now - math.max(CATCH_UP_MS, slot)
  redis.call('HSET', PACE, bot, string.format('%.3f', math.max(pace_free_at(bot), earliest) + slot))
end

-- It did not leave after all: its place in the logs is free again. granted: ms.
local function take_back_departure(lane, bot, granted)
  redis.call('LREM', log_key('chat:' .. lane), -1, granted)
  redis.call('LREM', log_key('bot:' .. bot), -1, granted)
end
