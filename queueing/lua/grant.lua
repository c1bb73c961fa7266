-- grant: the one place where a message is admitted. Every limit is asked before anything is written.

local BULK_SHARE = 0.8 -- of a process's coroutines; the rest is free for what a person waits for
local BOT_SHARE = 0.5  -- of them for one bot, while others have something to send
local LOOKS = 50       -- lanes and messages that may be found not to be eligible after all, in one call

-- What has become due goes back to its place, at most 100 of each kind a call.
local function promote()
  for _, lane in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', DUE, lane)
    place(lane, served_at(lane))
  end
  for _, bot in ipairs(redis.call('ZRANGEBYSCORE', BOTS_DUE, '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', BOTS_DUE, bot)
    redis.call('ZADD', BOTS, bot_served_at(bot), bot)
    blocked[bot] = false
  end
end

-- → the head as a grant has it, { lane, token, attempts, takeovers, entry }; nil if there is none
local function granted(lane, priority, token)
  local entry = redis.call('LINDEX', list_key(priority, lane), 0)
  if not entry then return nil end
  local attempts, takeovers = tries(priority, lane)
  return { lane, token, attempts, takeovers, entry }
end

local function block(bot, free_at)
  redis.call('ZREM', BOTS, bot)
  redis.call('ZADD', BOTS_DUE, free_at, bot)
  blocked[bot] = true
end

-- Who holds what: in_hand[bot] and in_hand.bulk.
local function tally(leases)
  local in_hand = { bulk = 0 }
  for lane, lease in pairs(leases) do
    local bot = bot_of_lane(lane)
    in_hand[bot] = (in_hand[bot] or 0) + 1
    if lease.priority == 'b' then in_hand.bulk = in_hand.bulk + 1 end
  end
  return in_hand
end

-- The bot that was served longest ago, of those that may send; one that has its share only if no other can.
local function choose_bot(in_hand, workers, passed)
  local second
  for _, bot in ipairs(redis.call('ZRANGE', BOTS, 0, 9 + passed.count)) do
    if not passed[bot] then
      local _, probe_at = outage_of(bot)
      local free_at = math.max(bot_free_at(bot), probe_at)
      if free_at > now then
        block(bot, free_at)
      elseif (in_hand[bot] or 0) < workers * BOT_SHARE then
        return bot
      else
        second = second or bot
      end
    end
  end
  return second
end

-- → lane and priority of the bot's next lane; nil if there is none that may be served now
local function next_lane(bot, may_take_bulk, passed)
  local more = false
  for _, priority in ipairs(PRIORITIES) do
    if priority ~= 'b' or may_take_bulk then
      local lane = redis.call('ZPOPMIN', ready_key(priority, bot))[1]
      if lane then return lane, priority end
    else
      more = redis.call('EXISTS', ready_key(priority, bot)) == 1
    end
  end
  passed[bot] = true
  passed.count = passed.count + 1
  if not more then redis.call('ZREM', BOTS, bot) end
end

local POISON = 3 -- times that the process that held it was presumed dead

-- Why a head is not to be sent any more: cancelled, expired, poison; nil if it is.
local function ended(message, takeovers)
  if message.tracked and redis.call('HGET', status_key(message.id), 'status') == 'cancelled' then return 'cancelled' end
  if message.expires and message.expires <= now then return 'expired' end
  return takeovers >= POISON and 'poison'
end

local function clear_head(lane, priority, message, why, status_ttl, buried)
  if why == 'poison' then
    local error = string.format('%d processes that held it were not heard any more', POISON)
    bury_head(lane, priority, status_ttl, why, error)
    buried[#buried + 1] = why
    buried[#buried + 1] = error
    return
  end
  remove_head(priority, lane)
  if message.tracked then set_status(message.id, status_ttl, 'status', why) end
  if why == 'expired' then count(why, 1) end
end

-- Takes away heads that are not to be sent any more, `most` at most. → how many, then the grant (still without a token)
-- and the message of the head that is to be sent; without one, the lane is put where it belongs.
local function clear_heads(lane, priority, most, status_ttl, buried)
  local cleared = 0
  while cleared < most do
    local grant = granted(lane, priority, '')
    if not grant then break end
    local message = parse(grant[5])
    local why = ended(message, grant[4])
    if not why then return cleared, grant, message end
    clear_head(lane, priority, message, why, status_ttl, buried)
    cleared = cleared + 1
  end
  place(lane, now - FRESH_MS)
  return cleared
end

-- Tokens are never used twice; those that a call set aside and did not need are lost.
local last_token, tokens_left = 0, 0
local function next_token(want)
  if tokens_left == 0 then
    last_token, tokens_left = redis.call('HINCRBY', TOTALS, 'fence', want), want
  end
  tokens_left = tokens_left - 1
  return string.format('%.0f', last_token - tokens_left)
end

local function lease(grant, message, priority, bot, token, held_key_, call)
  local lane = grant[1]
  redis.call('HSET', held_key_, lane, string.format('%s %d %s %.0f', token, call, priority, now))
  redis.call('ZADD', BOTS, now, bot)
  count_departure(lane, bot, token)
  note_probe(bot, lane)
  grant[2] = token
  if message.tracked then set_status(message.id, OPEN_STATUS_MS, 'status', 'sending') end
  return grant
end

-- buried: gets reason and error of each poison. → the grants, and whether there was more to look at than one call may
local function grant(want, workers, leases, held_key_, call, status_ttl, buried)
  local grants, in_hand, passed, looks = {}, tally(leases), { count = 0 }, 0
  while #grants < want and looks < LOOKS do
    local bot = choose_bot(in_hand, workers, passed)
    if not bot then break end
    local lane, priority = next_lane(bot, in_hand.bulk < workers * BULK_SHARE, passed)
    local free_at = lane and chat_free_at(lane)
    if lane and free_at > now then
      redis.call('ZADD', DUE, free_at, lane)
      looks = looks + 1
    elseif lane then
      local cleared, found, message = clear_heads(lane, priority, LOOKS - looks, status_ttl, buried)
      looks = looks + cleared
      if found then
        grants[#grants + 1] = lease(found, message, priority, bot, next_token(want - #grants), held_key_, call)
        in_hand[bot] = (in_hand[bot] or 0) + 1
        if priority == 'b' then in_hand.bulk = in_hand.bulk + 1 end
      end
    end
  end
  return grants, looks >= LOOKS
end

-- ms until a lane, a bot or a scheduled message has to be looked at again; -1: none is waiting for a time
local function next_due()
  local lane = redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES')[2]
  local bot = redis.call('ZRANGE', BOTS_DUE, 0, 0, 'WITHSCORES')[2]
  local scheduled = redis.call('ZRANGE', SCHEDULED, 0, 0, 'WITHSCORES')[2]
  local first = math.min(tonumber(lane or FOR_EVER), tonumber(bot or FOR_EVER), tonumber(scheduled or FOR_EVER))
  return first < FOR_EVER and math.max(0, math.ceil(first - now)) or -1
end

local function at_the_doors()
  return redis.call('LLEN', FRONT) + redis.call('LLEN', HANDOFF)
end
