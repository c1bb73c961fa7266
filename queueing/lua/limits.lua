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

local function note_limit(scope, free_at)
  if free_at > now then limited[scope] = limited[scope] + 1 end
end

local chats_free -- lane → the time at which one more may leave by its log, as far as this script knows

at_start(function() limited, chats_free = { chat = 0, group = 0, bot = 0 }, {} end)

local function chat_free_at(lane)
  local free_at = chats_free[lane]
  if not free_at then
    free_at = chat_free_by_log(lane)
    chats_free[lane] = free_at
  end
  if free_at > now then note_limit(string.match(lane, ':[-@]') and 'group' or 'chat', free_at) end
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
do -- a script has room for 200 local names
  local CATCH_UP_MS = 50 -- what the pace may catch up when nobody asked in time, but one slot at least

  -- account → the time of its next slot, as far as this script knows; those that it changed are written at its end.
  local paces, changed_paces

  local function set_pace(account, at)
    paces[account] = at
    changed_paces[account] = true
  end

  function pace_free_at(account)
    if limit_of_account(account).n == 0 then return 0 end
    paces[account] = paces[account] or tonumber(redis.call('HGET', PACE, account) or 0)
    return paces[account]
  end

  -- account → what leaves in this script, as ZADD has it: it is the newest of the log, into which it comes at the end.
  local leaving

  -- account → a piece of its log, the newest first, and the rank of its first: so that ten grants are two questions.
  local pieces
  local AHEAD = 9

  local function free_by_account_log(account, limit)
    if limit.n == 0 then return 0 end
    local rank, piece = limit.n - 1 - #(leaving[account] or {}) / 2, pieces[account]
    if rank < 0 then return now + WRITE_WITHIN_MS + limit.period end
    if not piece or rank < piece.first then
      piece = { first = piece and math.max(0, rank - AHEAD) or rank }
      piece.times = redis.call('ZREVRANGE', log_key(account), piece.first, rank, 'WITHSCORES')
      pieces[account] = piece
    end
    local first = piece.times[2 * (rank - piece.first) + 2]
    return first and first + limit.period or 0
  end

  function account_limit_ends(account)
    return math.max(free_by_account_log(account, limit_of_account(account)), pace_free_at(account))
  end

  -- A message of this account is granted, and will leave.
  function count_departure(account, token)
    local limit = limit_of_account(account)
    if limit.n == 0 then return end
    local entries = leaving[account] or {}
    leaving[account] = entries
    entries[#entries + 1] = text_of(now + WRITE_WITHIN_MS)
    entries[#entries + 1] = token
    local slot = limit.period / limit.n
    local earliest = now - math.max(CATCH_UP_MS, slot)
    set_pace(account, math.max(pace_free_at(account), earliest) + slot)
  end

  local corrected -- account → when what left earlier than was put down left, as ZADD has it

  at_start(function() paces, changed_paces, leaving, pieces, corrected = {}, {}, {}, {}, {} end)

  -- It left at this time, ms.
  function correct_departure(account, token, at)
    if limit_of_account(account).n == 0 then return end
    local entries = corrected[account] or {}
    corrected[account] = entries
    entries[#entries + 1] = text_of(at)
    entries[#entries + 1] = token
  end

  -- So they may be free earlier, too.
  function look_earlier()
    for account, entries in pairs(corrected) do
      redis.call('ZADD', log_key(account), 'XX', unpack(entries))
      pieces[account] = nil
      redis.call('ZADD', BOTS_DUE, 'XX', 'LT', math.max(now, unpaused_at(account), account_limit_ends(account)), account)
    end
    corrected = {}
  end

  -- It did not leave after all: its place in the log, and its slot, are free again.
  function take_back_departure(account, token)
    local limit = limit_of_account(account)
    if limit.n == 0 then return end
    redis.call('ZREM', log_key(account), token)
    pieces[account] = nil
    set_pace(account, pace_free_at(account) - limit.period / limit.n)
    redis.call('ZADD', BOTS_DUE, 'XX', now, account)
  end

  function write_departures()
    for account, entries in pairs(leaving) do
      local key, limit = log_key(account), limit_of_account(account)
      redis.call('ZADD', key, unpack(entries))
      redis.call('ZREMRANGEBYSCORE', key, '-inf', text_of(now - limit.period))
      redis.call('PEXPIRE', key, limit.kept)
    end
    for account in pairs(changed_paces) do redis.call('HSET', PACE, account, string.format('%.3f', paces[account])) end
  end
end

local function account_free_at(account)
  local free_at = account_limit_ends(account)
  note_limit('bot', free_at)
  return math.max(unpaused_at(account), free_at)
end

-- When an account had its turn last, as far as its pace tells; otherwise now.
local function account_served_at(account)
  local limit = limit_of_account(account)
  if limit.n == 0 then return now end
  return math.min(now, pace_free_at(account) - limit.period / limit.n)
end
