-- What may leave now. A limit "n in a period" is an exact sliding log: the times (ms) of the last n that left; the next
-- may leave a period after the first of them. A departure is logged as late as it may happen, until its settlement tells
-- when it was: a granted message is written within WRITE_WITHIN_MS, or goes back unsent. Grants of a bot are also paced at period / n, so that the next slot is
-- never far: a bare log lets a burst through, then nothing for the rest of the period.
--
-- LIMITS  of the accounts: bot, paid; of chats: chat, group, and "=CHAT" for single ones; each { n, period (ms) }.
-- n = 0: no limit.
local LIMITS, singles = {}, {}
local WRITE_WITHIN_MS = 500 -- limits.WRITE_WITHIN

-- What the pace may catch up when nobody asked in time: ms, but one slot at least.
local CATCH_UP_MS = 50

local function read_limits(text)
  for scope, n, period in string.gmatch(text, '(%S+) (%d+) ([%d.]+)') do
    LIMITS[scope] = { n = tonumber(n), period = tonumber(period) }
    singles[#singles + 1] = string.match(scope, '^=(.*)')
  end
end

local limit_of_chat
do -- a script has room for 200 local names
  local renamed = {} -- bot → chat → the limit that was set for another of its names

  local function single_limit(lane)
    local bot, chat = string.match(lane, '^([^:]*):(.*)$')
    local limit = LIMITS['=' .. chat]
    if limit or not any_alias then return limit end
    if not renamed[bot] then
      local lanes = {}
      for i, name in ipairs(singles) do lanes[i] = bot .. ':' .. name end
      renamed[bot] = {}
      for i, other in ipairs(redis.call('HMGET', ALIASES, unpack(lanes))) do
        if other then renamed[bot][other] = LIMITS['=' .. singles[i]] end
      end
    end
    return renamed[bot][chat]
  end

  function limit_of_chat(lane)
    return #singles > 0 and single_limit(lane) or string.match(lane, ':[-@]') and LIMITS.group or LIMITS.chat
  end
end

local function limit_of_account(account)
  return string.find(account, '$', 1, true) and LIMITS.paid or LIMITS.bot
end

-- The time at which one more may leave by this log; 0: now.
local function free_by_log(scope, limit)
  if limit.n == 0 then return 0 end
  local first = redis.call('ZREVRANGE', log_key(scope), limit.n - 1, limit.n - 1, 'WITHSCORES')[2]
  return first and first + limit.period or 0
end

local trimmed = {} -- logs that hold nothing any more that is past

-- A minute longer than it matters: keys expire by the server's clock, and early if that is set forward.
local function keep_log(key, limit)
  redis.call('PEXPIRE', key, math.ceil(limit.period) + WRITE_WITHIN_MS + 60000)
end

local function write_log(scope, limit, token)
  if limit.n == 0 then return end
  local key = log_key(scope)
  redis.call('ZADD', key, now + WRITE_WITHIN_MS, token)
  if trimmed[key] then return end
  trimmed[key] = true
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now - limit.period)
  keep_log(key, limit)
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

-- account → the time of its next slot, as far as this script knows; those that it changed are written at its end.
local paces, changed_paces = {}, {}

local function set_pace(account, at)
  paces[account] = at
  changed_paces[account] = true
end

local function write_paces()
  for account in pairs(changed_paces) do redis.call('HSET', PACE, account, string.format('%.3f', paces[account])) end
end

local function pace_free_at(account)
  if limit_of_account(account).n == 0 then return 0 end
  paces[account] = paces[account] or tonumber(redis.call('HGET', PACE, account) or 0)
  return paces[account]
end

local function account_limit_ends(account)
  return math.max(free_by_log('bot:' .. account, limit_of_account(account)), pace_free_at(account))
end

local function unpaused_at(account) return math.max(paused_until('*'), paused_until(bot_of_account(account))) end

local function account_free_at(account)
  local free_at = account_limit_ends(account)
  note_limit('bot', free_at)
  return math.max(unpaused_at(account), free_at)
end

-- A message of this lane is granted, and will leave.
local function count_departure(lane, account, token)
  write_log('chat:' .. lane, limit_of_chat(lane), token)
  local limit = limit_of_account(account)
  if limit.n == 0 then return end
  write_log('bot:' .. account, limit, token)
  local slot = limit.period / limit.n
  local earliest = now - math.max(CATCH_UP_MS, slot)
  set_pace(account, math.max(pace_free_at(account), earliest) + slot)
end

local corrected = {} -- accounts of which something left earlier than was put down

-- It left at this time, ms.
local function correct_departure(lane, account, token, at)
  if limit_of_chat(lane).n > 0 then redis.call('ZADD', log_key('chat:' .. lane), 'XX', at, token) end
  if limit_of_account(account).n == 0 then return end
  redis.call('ZADD', log_key('bot:' .. account), 'XX', at, token)
  corrected[account] = true
end

-- So they may be free earlier, too.
local function look_earlier()
  for account in pairs(corrected) do
    redis.call('ZADD', BOTS_DUE, 'XX', 'LT', math.max(now, unpaused_at(account), account_limit_ends(account)), account)
  end
end

-- It did not leave after all: its place in the logs, and its slot, are free again.
local function take_back_departure(lane, account, token)
  redis.call('ZREM', log_key('chat:' .. lane), token)
  local limit = limit_of_account(account)
  if limit.n == 0 then return end
  redis.call('ZREM', log_key('bot:' .. account), token)
  set_pace(account, pace_free_at(account) - limit.period / limit.n)
  redis.call('ZADD', BOTS_DUE, 'XX', now, account)
end

-- When an account had its turn last, as far as its pace tells; otherwise now.
local function account_served_at(account)
  local limit = limit_of_account(account)
  if limit.n == 0 then return now end
  return math.min(now, pace_free_at(account) - limit.period / limit.n)
end
