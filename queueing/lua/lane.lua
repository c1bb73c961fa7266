-- A lane: for each priority a list of entries, whose head stays where it is until it is settled. A lane with entries is
-- in exactly one of: the `ready` sets of its head's account, DUE, a process's `held` hash, or MERGING; an empty one is in
-- none of them.
-- An entry: "id flags accepted", " expires" if it does, the words below, a line's end, and the element. Times: ms.
-- flags: - or any of t (tracked), h (held in doubt), r (sent again in doubt), p (paid), o (open, and may be
-- committed), v (open, and provisional), w (awaited), a (it may have to wait for others: after or behind them).
-- words: after=ID,ID (?ID: one that was not known)  behind=ID  hold=LANE,LANE  group=NAME, see parents.lua.

-- A lane that was empty counts as served this long ago: it goes before the busy ones, but not before those that have
-- waited for longer than this, so that a stream of new lanes starves nobody.
local FRESH_MS = 60000

local function parse(entry)
  local id, flags, accepted, expires, words = string.match(entry, '^(%S+) (%S+) (%d+) ?(%d*)([^\n]*)\n')
  local message = { id = id, accepted = tonumber(accepted), expires = tonumber(expires), entry = entry }
  if flags ~= '-' then
    local function has(flag) return string.find(flags, flag, 1, true) ~= nil end
    message.tracked, message.held, message.resent, message.paid = has('t'), has('h'), has('r'), has('p')
    message.provisional, message.awaited, message.may_wait = has('v'), has('w'), has('a')
    message.commits = has('o')
    message.open = message.provisional or message.commits
  end
  if words ~= '' then
    for name, value in string.gmatch(words, '(%l+)=(%S+)') do message[name] = value end
  end
  message.linked = message.open or message.awaited or message.group ~= nil
  return message
end

-- An entry is asked for several flags in a row.
local has_flag
do -- a script has room for 200 local names
  local last, flags
  function has_flag(entry, flag)
    if entry ~= last then last, flags = entry, string.match(entry, '^%S+ (%S+)') end
    return flags ~= '-' and string.find(flags, flag, 1, true) ~= nil
  end
end

-- Most entries say nothing but their id and their time, and are not taken to pieces.
local PLAIN = {}
local function parse_rest(entry) return string.find(entry, '^%S+ %- %d+\n') and PLAIN or parse(entry) end

-- Why a message is not to be sent any more: done (all but acknowledged), cancelled, recalled (with its group), expired;
-- nil if it is.
local function over(message)
  if message.commits and open.is_committed(message.id) then return 'done' end
  if message.tracked and redis.call('HGET', status_key(message.id), 'status') == 'cancelled' then return 'cancelled' end
  if message.group and redis.call('HEXISTS', group_key(message.group), '#cancelled') == 1 then return 'recalled' end
  return message.expires and message.expires <= wall and 'expired' or nil
end

local function head(priority, lane)
  local entry = redis.call('LINDEX', list_key(priority, lane), 0)
  return entry and parse(entry)
end

-- The tries of a head, by "priority lane": "attempts takeovers until\n", then a line for each: "ms reason error",
-- tab-separated. until: ms, before which it is not tried again.
local any_tried
at_start(function() any_tried = any_rare and redis.call('EXISTS', TRIES) == 1 end)

local function tries(priority, lane)
  local kept = any_tried and redis.call('HGET', TRIES, priority .. ' ' .. lane)
  if not kept then return 0, 0, 0, '' end
  local attempts, takeovers, till, lines = string.match(kept, '^(%d+) (%d+) (%d+)\n(.*)$')
  return tonumber(attempts), tonumber(takeovers), tonumber(till), lines
end

-- When a lane had its turn last, as far as its log and its tries tell; otherwise now.
local function served_at(lane)
  local served = limit_of_chat(lane).n > 0 and redis.call('LINDEX', left_key(lane), -1)
  served = tonumber(served or 0)
  for _, priority in ipairs(PRIORITIES) do
    local _, _, _, lines = tries(priority, lane)
    local tried = string.match(lines, '(%d+)\t[^\n]*\n$')
    if tried then served = math.max(served, tried + skew) end
  end
  return served > 0 and served or now
end

-- try: { counts, taken_over, till, reason, error }. Returns the attempts so far.
local function note_try(priority, lane, try)
  local KEPT = 4000 -- bytes; the oldest lines go first
  local attempts, takeovers, _, lines = tries(priority, lane)
  lines = lines .. wall .. '\t' .. try.reason .. '\t' .. try.error .. '\n'
  while #lines > KEPT and string.find(lines, '\n.') do
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

-- The one place where a message ends. state, detail: as in parents.note_end. → the message, taken to pieces by `parse`
local function remove_head(priority, lane, state, detail, parse)
  if any_tried then redis.call('HDEL', TRIES, priority .. ' ' .. lane) end
  count_laned(lane, priority, -1)
  local message = parse(redis.call('LPOP', list_key(priority, lane)))
  if message.linked then parents.note_end(message, state, detail) end
  return message
end

-- The account on which this entry, the head of a lane, leaves.
local function account_for(lane, entry)
  local bot = bot_of_lane(lane)
  return has_flag(entry, 'p') and account_of(bot, true) or bot
end

local blocked -- account → whether it is in BOTS_DUE, as far as this script knows

local paid_ready -- bot → whether lanes of its paid account are ready, as far as this script knows

-- The same of accounts in BOTS, and of ready sets that are empty: so that it is asked once a script, not for each lane.
local in_bots, empty

local bots_in_turn -- the first of BOTS, if they were read and are the same yet

at_start(function() blocked, paid_ready, in_bots, empty, bots_in_turn = {}, {}, {}, {}, nil end)

-- Where many lanes become ready one after the other they are gathered, and put into their sets together; whoever looks at
-- a set puts them there first. ready set → score and lane in turn; nil: each goes there at once.
local gather_ready, put_ready, make_ready
do -- a script has room for 200 local names
  local gathered
  at_start(function() gathered = nil end)

  function gather_ready() gathered = {} end

  function put_ready()
    for ready, lanes in pairs(gathered or {}) do redis.call('ZADD', ready, unpack(lanes)) end
    gathered = nil
  end

  function make_ready(lane, priority, entry, served)
    local bot, account = bot_of_lane(lane), account_for(lane, entry)
    local ready = ready_key(priority, account)
    if account ~= bot then paid_ready[bot] = true end
    if gathered then
      local lanes = gathered[ready] or {}
      gathered[ready] = lanes
      lanes[#lanes + 1] = text_of(served)
      lanes[#lanes + 1] = lane
    else
      redis.call('ZADD', ready, text_of(served), lane)
    end
    empty[ready] = nil
    if blocked[account] == nil then blocked[account] = redis.call('ZSCORE', BOTS_DUE, account) and true end
    if blocked[account] or in_bots[account] then return end
    redis.call('ZADD', BOTS, 'NX', text_of(served), account)
    in_bots[account], bots_in_turn = true, nil
  end
end

-- The head of a list, and the time before which it is not to be sent: of its retry or, if it waits for another message,
-- of the next look. The end of that one comes first as a rule; a head that is not tried yet is noted as if it was.
local head_and_time
do
  local UNTRIED = '0 0 0\n'
  local LOOK_AGAIN_MS = 60000
  local BEHIND_MOST = 100 -- heads that go to the tail, in one look

  -- → the id of what the head waits for, and whether that stands behind it in its own list (it was sent again, or for later)
  local function wait_of(entry, priority, lane)
    local message = parse(entry)
    local id = not over(message) and parents.of(message)
    if not id then return nil end
    local where, its_lane = open.place_of(id)
    return id, where == priority and canonical(its_lane) == lane, message.expires
  end

  local function held_up(entry, priority, lane)
    local key, tries_key = list_key(priority, lane), priority .. ' ' .. lane
    for _ = 1, BEHIND_MOST do
      local id, is_behind, expires = wait_of(entry, priority, lane)
      if not id then return entry, 0 end
      if not is_behind then
        parents.wait(id, lane)
        redis.call('HSETNX', TRIES, tries_key, UNTRIED)
        any_tried = true
        return entry, math.min(now + LOOK_AGAIN_MS, (expires or math.huge) + skew)
      end
      redis.call('HDEL', TRIES, tries_key)
      redis.call('LMOVE', key, key, 'LEFT', 'RIGHT')
      entry = redis.call('LINDEX', key, 0)
      if not has_flag(entry, 'a') then return entry, 0 end
    end
    return entry, now + LOOK_AGAIN_MS
  end

  -- entry: the head, if it is known.
  function head_and_time(priority, lane, entry)
    entry = entry or redis.call('LINDEX', list_key(priority, lane), 0)
    if not entry then return end
    local _, _, till = tries(priority, lane)
    if till > now or not has_flag(entry, 'a') then return entry, till end
    return held_up(entry, priority, lane)
  end
end

-- Puts a lane that is nowhere to where it belongs. served: when it had its turn last, ms. → the priority for which it is
-- ready now; nil: for none. One whose head has to wait may be ready for a lower priority, and is in DUE as well.
-- only, its_head: the one priority of which it has entries, and the first of them, where that is known.
local function place(lane, served, only, its_head)
  if merging[lane] then return end
  local first, entry, earliest
  for i = 1, #PRIORITIES do
    local priority, till = PRIORITIES[i], nil
    if not only or only == priority then entry, till = head_and_time(priority, lane, its_head) end
    if till then
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
    make_ready(lane, first, entry, served)
    if earliest then redis.call('ZADD', DUE, earliest, lane) end
    return first
  end
  redis.call('ZADD', DUE, first and chat_free or math.max(chat_free, earliest), lane)
end

local leave_ready
do -- a script has room for 200 local names
  local function leave_ready_of(account, lane)
    for _, priority in ipairs(PRIORITIES) do redis.call('ZREM', ready_key(priority, account), lane) end
  end

  function leave_ready(lane)
    put_ready()
    local bot = bot_of_lane(lane)
    local paid = account_of(bot, true)
    if paid_ready[bot] == nil then
      paid_ready[bot] = redis.call('EXISTS', ready_key('i', paid), ready_key('n', paid), ready_key('b', paid)) > 0
    end
    leave_ready_of(bot, lane)
    if paid_ready[bot] then leave_ready_of(paid, lane) end
  end
end

local push, place_again
do -- a script has room for 200 local names
  local OTHERS = { i = { 'n', 'b' }, n = { 'i', 'b' }, b = { 'i', 'n' } }

  -- Most of the time all that is in lanes is of one priority.
  local function has_others(lane, priority)
    local one, other = OTHERS[priority][1], OTHERS[priority][2]
    return (has_laned(one) or has_laned(other)) and redis.call('EXISTS', list_key(one, lane), list_key(other, lane)) > 0
  end

  -- The same of a lane whose head of this priority has left.
  function place_again(lane, served, priority)
    if has_others(lane, priority) then return place(lane, served) end
    local next_one = redis.call('LINDEX', list_key(priority, lane), 0)
    if next_one then place(lane, served, priority, next_one) end
  end

  -- A new message of a lane that has others, of other priorities: if it goes before them, the lane may be earlier in turn.
  local function upgrade(lane, priority, entry)
    put_ready()
    local below = false
    for _, lower in ipairs(PRIORITIES) do
      local first = below and redis.call('LINDEX', list_key(lower, lane), 0)
      local ready = first and ready_key(lower, account_for(lane, first))
      local served = ready and redis.call('ZSCORE', ready, lane)
      if served then
        redis.call('ZREM', ready, lane)
        return make_ready(lane, priority, entry, served)
      end
      below = below or lower == priority
    end
    if redis.call('ZREM', DUE, lane) == 1 then
      leave_ready(lane)
      place(lane, now - FRESH_MS)
    end
  end

  function push(lane, priority, entry)
    count_laned(lane, priority, 1)
    if redis.call('RPUSH', list_key(priority, lane), entry) > 1 then return end
    if has_others(lane, priority) then
      upgrade(lane, priority, entry)
    else
      place(lane, now - FRESH_MS, priority, entry)
    end
  end
end
