#!lua flags=no-writes
-- why: what a tracked message waits for. Looks at a thousand messages before it at most, and at 4 MiB of them.
--
-- KEYS  1 front door
-- ARGV  1 id   2 limits, see limits.lua
-- Returns nil if it waits for nothing: unknown, ended, or in flight; else
--         { reason, until when at the earliest in ms or -1, messages ahead, 1 if there are more than those }
-- include: keys, aliases, limits, outage, open, parents, lane, holder

local id = ARGV[1]
read_limits(ARGV[2])
local state, bot, chat, send_at = unpack(redis.call('HMGET', status_key(id), 'status', 'bot', 'chat', 'send_at'))
if state ~= 'pending' and state ~= 'retrying' and state ~= 'sending' then return nil end
if not bot then return nil end -- its status has expired while it waited
local lanes = lanes_of_chat(bot .. ':' .. chat)
local lane, account, held = lanes[1], bot, nil
for _, one in ipairs(lanes) do
  local here = in_flight(one)
  if here and head(here, one).id == id then return nil end
  held = held or here
end

local MOST, MOST_BYTES, STEP = 1000, 4 * 1024 * 1024, 50
local ahead, bytes = 0, 0
local function is_over() return ahead >= MOST or bytes >= MOST_BYTES end

-- → its entry, if a list has it; counts those before it
local function find(key, pattern)
  local start = 0
  while not is_over() do
    local entries = redis.call('LRANGE', key, start, start + STEP - 1)
    for _, entry in ipairs(entries) do
      if string.find(entry, pattern) then return entry end
      ahead, bytes = ahead + 1, bytes + #entry
    end
    if #entries < STEP then return nil end
    start = start + STEP
  end
end

local literal = string.gsub(id, '%p', '%%%0')
local function find_in_list(key)
  local entry = find(key, '^' .. literal .. ' ')
  if entry then account = account_for(lane, entry) end
  return entry or is_over()
end

local function find_in_lane()
  for _, priority in ipairs(PRIORITIES) do
    for i = #lanes, 1, -1 do
      if merging[lanes[i]] and find_in_list(merged_key(priority, lanes[i])) then return priority end
      if find_in_list(list_key(priority, lanes[i])) then return priority end
    end
  end
end

-- Lanes of its account that have their turn before this one.
local function lanes_before(priority)
  local before = 0
  for _, higher in ipairs(PRIORITIES) do
    if higher == priority then
      return before + (redis.call('ZRANK', ready_key(priority, account), lane) or 0)
    end
    before = before + redis.call('ZCARD', ready_key(higher, account))
  end
end

local function spacing(limit) return limit.n > 0 and limit.period / limit.n or 0 end

-- The time at which one more of the account may leave by its log; 0: now.
local function account_free_by_log(limit)
  if limit.n == 0 then return 0 end
  local first = redis.call('ZREVRANGE', log_key(account), limit.n - 1, limit.n - 1, 'WITHSCORES')[2]
  return first and first + limit.period or 0
end

-- What holds the lane, and until when: the latest of all and, of those that end together, the widest.
local function obstacle(priority)
  local reason, till = ahead > 0 and 'ahead' or 'turn', now
  local function consider(at, why)
    if at and at > till then reason, till = why, at end
  end
  for _, scope in ipairs({ '*', bot, lane }) do consider(pause_of(scope)) end
  local limit = limit_of_account(account)
  local bot_free = math.max(account_free_by_log(limit), pace_free_at(account))
  local before = lanes_before(priority)
  if before > 0 then bot_free = math.max(bot_free, now) + before * spacing(limit) end
  consider(bot_free, 'bot_limit')
  consider(chat_free_by_log(lane), 'chat_limit')
  local _, _, again = tries(priority, lane)
  consider(again, 'retry')
  local first = head(priority, lane)
  if first and first.may_wait and parents.of(first) then consider(FOR_EVER, 'parent') end
  local _, probe_at = outage_of(bot)
  consider(probe_at, 'outage')
  return reason, till
end

-- till: ms, or now if nothing but those ahead is known to be in the way
local function answer(reason, till, more)
  till = till + ahead * math.max(spacing(limit_of_chat(lane)), spacing(limit_of_account(account)))
  if till <= now or till >= FOR_EVER then till = -1 end
  if till >= 0 then till = till - skew end
  return { reason, math.ceil(till), ahead, more and 1 or 0 }
end

local priority = find_in_lane()
if priority then
  local more = is_over()
  if not more and ahead == 0 and held then ahead = 1 end -- of a lower priority, and already on its way
  local reason, till = obstacle(priority)
  return answer(reason, till, more)
end
ahead, bytes = 0, 0
if send_at and tonumber(send_at) > wall then return answer('schedule', tonumber(send_at) + skew) end
local pattern = '"id"%s*:%s*"' .. literal .. '"'
local found = find(HANDOFF, pattern) or find(FRONT, pattern)
if not found then
  -- At the door of its bot's bulk it stands behind what the look-ahead has taken from there.
  ahead = math.min(MOST, ahead + tonumber(redis.call('HGET', LANED_BULK, bot) or 0))
  found = find(bulk_key(bot), pattern)
end
return answer('door', now, not found and is_over())
