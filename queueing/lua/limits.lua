-- What may leave now. A limit "n in a period" is an exact sliding log: the times (ms) of the last n that left; the next
-- may leave a period after the first of them. In a bot's log a departure stands as late as it may happen, until its
-- settlement tells when it was: a granted message is written within WRITE_WITHIN_MS, or goes back unsent. A chat's log is
-- written by that settlement alone: until then its lane is in flight, and nothing else of it leaves. Grants of a bot are
-- also paced at period / n, so that the next slot is never far: a bare log lets a burst through, then nothing for the rest
-- of the period.
--
-- LIMITS  of the accounts: bot, paid; of chats: chat, group, and "=CHAT" for single ones; each { n, period (ms), nth: the
-- place of the n-th last in a list, kept: for how long a log is kept, ms }. n = 0: no limit.
local LIMITS, singles
at_start(function() LIMITS, singles = {}, {} end)
local WRITE_WITHIN_MS = 500 -- limits.WRITE_WITHIN

local function read_limits(text)
  for scope, n, period in string.gmatch(text, '(%S+) (%d+) ([%d.]+)') do
    -- A minute longer than it matters: keys expire by the server's clock, and early if that is set forward.
    local kept = string.format('%.0f', math.ceil(period) + WRITE_WITHIN_MS + 60000)
    LIMITS[scope] = { n = tonumber(n), period = tonumber(period), nth = '-' .. n, kept = kept }
    singles[#singles + 1] = string.match(scope, '^=(.*)')
  end
end

local limit_of_chat, limit_of_account
do -- a script has room for 200 local names
  local renamed -- bot → chat → the limit that was set for another of its names
  local known   -- account or lane → its limit, where it goes by what it is alone
  at_start(function() renamed, known = {}, {} end)

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
    local single = #singles > 0 and single_limit(lane)
    if single then return single end
    local limit = known[lane]
    if not limit then
      limit = string.find(lane, '^[^:]*:[-@]') and LIMITS.group or LIMITS.chat
      known[lane] = limit
    end
    return limit
  end

  function limit_of_account(account)
    local limit = known[account]
    if not limit then
      limit = string.find(account, '$', 1, true) and LIMITS.paid or LIMITS.bot
      known[account] = limit
    end
    return limit
  end
end

-- The time at which one more of a chat may leave by its log; 0: now.
local function chat_free_by_log(lane)
  local limit = limit_of_chat(lane)
  if limit.n == 0 then return 0 end
  local first = redis.call('LINDEX', left_key(lane), limit.nth)
  return first and first + limit.period or 0
end

-- Pauses: scope (a lane, a bot, or * for everything) → "until reason", ms. One that a person ordered stands beside it,
-- under "hand scope" → "since reason": it ends by a person alone, who does not end a flood wait with it.
local FOR_EVER = 9e15
local any_paused
at_start(function() any_paused = any_rare and redis.call('EXISTS', PAUSED) == 1 end)

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
local limited

local function note_limit(scope) limited[scope] = limited[scope] + 1 end

local chats_free -- lane → the time at which one more may leave by its log, as far as this script knows

at_start(function() limited, chats_free = { chat = 0, group = 0, bot = 0 }, {} end)

local function chat_free_at(lane)
  local free_at = chats_free[lane]
  if not free_at then
    free_at = chat_free_by_log(lane)
    chats_free[lane] = free_at
  end
  if free_at > now then note_limit(string.match(lane, ':[-@]') and 'group' or 'chat') end
  return any_paused and math.max(paused_until(lane), free_at) or free_at
end

local function unpaused_at(account)
  return any_paused and math.max(paused_until('*'), paused_until(bot_of_account(account))) or 0
end

-- A message of this lane left at this time, ms, at the latest; or nobody knows whether it did.
local count_departure_of_chat
do -- a script has room for 200 local names
  local TRIMMED_BY = 64 -- departures

  -- Those beyond the limit go, and what is past; a log that is not read meanwhile goes as a whole.
  local function trim(key, limit, many)
    if many > limit.n then
      redis.call('LTRIM', key, limit.nth, -1)
      return
    end
    local past = 0
    for _, at in ipairs(redis.call('LRANGE', key, 0, TRIMMED_BY - 1)) do
      if tonumber(at) <= now - limit.period then past = past + 1 end
    end
    if past > 0 then redis.call('LPOP', key, past) end
  end

  function count_departure_of_chat(lane, at)
    local limit = limit_of_chat(lane)
    if limit.n == 0 then return end
    local key = left_key(lane)
    at = math.min(at, now) -- whoever tells of it does so later: so the list is in order
    local many = redis.call('RPUSH', key, text_of(at))
    redis.call('PEXPIRE', key, limit.kept)
    chats_free[lane] = limit.n == 1 and at + limit.period or many < limit.n and 0 or nil
    if many % TRIMMED_BY == 0 then trim(key, limit, many) end
  end
end

local account_limit_ends, pace_free_at, count_departure, correct_departure, look_earlier, take_back_departure, write_departures
local account_served_at
do -- a script has room for 200 local names
  local CATCH_UP_MS = 50 -- what the pace may catch up when nobody asked in time, but one slot at least
  local TRIMMED_EVERY_MS = 8

  -- What is known of an account in this script: { limit, slot: ms from one to the next, pace: the time of its next slot,
  -- leaving: what leaves in this script, as ZADD has it: it is the newest of the log, into which it comes at the end,
  -- corrected: likewise, of what left earlier than was put down, first, times: a piece of its log, the newest first, and
  -- the rank of its first: so that ten grants are two questions }.
  local budgets
  at_start(function() budgets = {} end)

  local function budget_of(account)
    local budget = budgets[account]
    if not budget then
      budget = { limit = limit_of_account(account), slot = 0, pace = 0, leaving = {}, corrected = {} }
      budgets[account] = budget
      if budget.limit.n > 0 then
        budget.slot = budget.limit.period / budget.limit.n
        budget.pace = tonumber(redis.call('HGET', PACE, account) or 0)
      end
    end
    return budget
  end

  local function set_pace(budget, at) budget.pace, budget.is_changed = at, true end

  function pace_free_at(account) return budget_of(account).pace end

  local AHEAD = 9

  local function log_ends(account, budget)
    local limit, times = budget.limit, budget.times
    local rank = limit.n - 1 - #budget.leaving / 2
    if rank < 0 then return now + WRITE_WITHIN_MS + limit.period end
    if not times or rank < budget.first then
      budget.first = math.max(0, rank - AHEAD)
      times = redis.call('ZREVRANGE', log_key(account), budget.first, rank, 'WITHSCORES')
      budget.times = times
    end
    local first = times[2 * (rank - budget.first) + 2]
    return first and first + limit.period or 0
  end

  function account_limit_ends(account)
    local budget = budget_of(account)
    if budget.limit.n == 0 then return 0 end
    local free_at = log_ends(account, budget)
    return free_at > budget.pace and free_at or budget.pace
  end

  -- A message of this account is granted, and will leave.
  function count_departure(account, token)
    local budget = budget_of(account)
    if budget.limit.n == 0 then return end
    local leaving = budget.leaving
    leaving[#leaving + 1] = text_of(now + WRITE_WITHIN_MS)
    leaving[#leaving + 1] = token
    local earliest = now - math.max(CATCH_UP_MS, budget.slot)
    set_pace(budget, math.max(budget.pace, earliest) + budget.slot)
  end

  -- It left at this time, ms.
  function correct_departure(account, token, at)
    local budget = budget_of(account)
    if budget.limit.n == 0 then return end
    local corrected = budget.corrected
    corrected[#corrected + 1] = text_of(at)
    corrected[#corrected + 1] = token
  end

  -- So they may be free earlier, too.
  function look_earlier()
    for account, budget in pairs(budgets) do
      if #budget.corrected > 0 then
        redis.call('ZADD', log_key(account), 'XX', unpack(budget.corrected))
        budget.corrected, budget.times = {}, nil
        redis.call('ZADD', BOTS_DUE, 'XX', 'LT', math.max(now, unpaused_at(account), account_limit_ends(account)), account)
      end
    end
  end

  -- It did not leave after all: its place in the log, and its slot, are free again.
  function take_back_departure(account, token)
    local budget = budget_of(account)
    if budget.limit.n == 0 then return end
    redis.call('ZREM', log_key(account), token)
    budget.times = nil
    set_pace(budget, budget.pace - budget.slot)
    redis.call('ZADD', BOTS_DUE, 'XX', now, account)
  end

  function write_departures()
    for account, budget in pairs(budgets) do
      if #budget.leaving > 0 then
        local key, limit = log_key(account), budget.limit
        redis.call('ZADD', key, unpack(budget.leaving))
        if wall % TRIMMED_EVERY_MS == 0 then
          redis.call('ZREMRANGEBYSCORE', key, '-inf', text_of(now - limit.period))
        end
        redis.call('PEXPIRE', key, limit.kept)
      end
      if budget.is_changed then redis.call('HSET', PACE, account, string.format('%.3f', budget.pace)) end
    end
  end

  -- When an account had its turn last, as far as its pace tells; otherwise now.
  function account_served_at(account)
    local budget = budget_of(account)
    return budget.limit.n == 0 and now or math.min(now, budget.pace - budget.slot)
  end
end

local function account_free_at(account)
  local free_at = account_limit_ends(account)
  if free_at > now then note_limit('bot') end
  return any_paused and math.max(unpaused_at(account), free_at) or free_at
end
