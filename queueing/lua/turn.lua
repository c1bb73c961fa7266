-- turn: which account, and which of its lanes, is served next.

local read_hand, take_in_hand, leave_out_bulk, may_leave_at, block, choose_account, next_lane, put_back, note_turn
do -- a script has room for 200 local names
  local BULK_SHARE = 0.8 -- of a process's coroutines; the rest is free for what a person waits for
  local BOT_SHARE = 0.5  -- of them for one bot, where others were served of late: those may have something any moment
  local OF_LATE_MS = 3600000
  local NOTED_EVERY_MS = 1000 -- that a bot was served

  function block(account, free_at)
    redis.call('ZREM', BOTS, account)
    redis.call('ZADD', BOTS_DUE, free_at, account)
    blocked[account], in_bots[account], bots_in_turn = true, nil, nil
  end

  -- What a process holds: messages of each bot, and those of them that are bulk; and what it may hold.
  local hand

  function take_in_hand(bot, priority)
    hand.all[bot] = (hand.all[bot] or 0) + 1
    if priority ~= 'b' then return end
    hand.bulk[bot] = (hand.bulk[bot] or 0) + 1
    hand.bulk_of_all = hand.bulk_of_all + 1
  end

  function read_hand(leases, workers)
    hand.workers, hand.share = workers, workers * BOT_SHARE
    for lane, lease in pairs(leases) do take_in_hand(bot_of_lane(lane), lease.priority) end
  end

  -- From now on in this call. A bulk message at hand would take the next coroutine, before what a person waits for.
  function leave_out_bulk() hand.without_bulk = true end

  -- How many bots were served of late; and when each was, as far as this script knows: ms, 0 if it was not.
  local many_served, last_served

  local function served_of_late(bot)
    local at = last_served[bot]
    if not at then
      at = tonumber(redis.call('ZSCORE', SERVED, bot) or 0)
      if at <= now - OF_LATE_MS then at = 0 end
      last_served[bot] = at
    end
    return at
  end

  local function is_the_only_one(bot)
    many_served = many_served or redis.call('ZCOUNT', SERVED, '(' .. now - OF_LATE_MS, '+inf')
    return many_served == 0 or (many_served == 1 and served_of_late(bot) > 0)
  end

  local function note_served(bot)
    local at = served_of_late(bot)
    if at > now - NOTED_EVERY_MS then return end
    if at == 0 and many_served then many_served = many_served + 1 end
    last_served[bot] = now
    redis.call('ZADD', SERVED, now, bot)
    redis.call('ZREMRANGEBYSCORE', SERVED, '-inf', now - OF_LATE_MS)
    redis.call('PEXPIRE', SERVED, OF_LATE_MS)
  end

  local function bulk_room() return math.ceil(hand.workers * BULK_SHARE - hand.bulk_of_all) end

  local function may_take_bulk(bot)
    if hand.without_bulk or bulk_room() <= 0 then return false end
    return (hand.bulk[bot] or 0) < hand.share * BULK_SHARE or is_the_only_one(bot)
  end

  -- When anything of an account may leave: limits, pauses, outages.
  function may_leave_at(account)
    local _, probe_at = outage_of(bot_of_account(account))
    local free_at = account_free_at(account)
    return probe_at > free_at and probe_at or free_at
  end

  -- The account that was served longest ago, of those that may send; one whose bot has its share only if no other can.
  -- → it, and how many turned out to have to wait
  function choose_account(passed)
    local second
    local put_off = 0
    local in_turn = bots_in_turn or redis.call('ZRANGE', BOTS, 0, 9 + passed.count)
    bots_in_turn = in_turn
    for i = 1, #in_turn do
      local account = in_turn[i]
      if not passed[account] then
        local bot, free_at = bot_of_account(account), may_leave_at(account)
        if free_at > now then
          block(account, free_at)
          put_off = put_off + 1
        elseif (hand.all[bot] or 0) < hand.share then
          return account, put_off
        elseif not second and is_the_only_one(bot) then
          second = account
        end
      end
    end
    return second, put_off
  end

  -- Of a ready set one lane is taken, then all that are wanted at once. ready → those that came, as lane and score in turn,
  -- and `at`, where the next one is.
  local taken

  local function take_lane(ready, most)
    local some = taken[ready]
    if not some or not some[some.at] then
      if empty[ready] then return nil end
      local many = some and most or 1
      some = redis.call('ZPOPMIN', ready, many)
      some.at, taken[ready], empty[ready] = 1, some, #some < 2 * many or nil
    end
    local lane = some[some.at]
    some.at = some.at + 2
    return lane
  end

  -- Before anything is put among them, and at the end.
  function put_back()
    for ready, some in pairs(taken) do
      local left = {}
      for i = some.at, #some, 2 do
        left[#left + 1] = some[i + 1]
        left[#left + 1] = some[i]
      end
      if #left > 0 then
        redis.call('ZADD', ready, unpack(left))
        empty[ready] = nil
      end
    end
    taken = {}
  end

  -- → lane and priority of the account's next lane; nil if there is none that may be served now
  function next_lane(account, passed, most)
    local more = false
    for i = 1, #PRIORITIES do
      local priority = PRIORITIES[i]
      if not has_laned(priority) then
        -- There is none of it in any lane.
      elseif priority ~= 'b' or may_take_bulk(bot_of_account(account)) then
        local ready = ready_key(priority, account)
        local lane = take_lane(ready, priority == 'b' and math.min(most, bulk_room()) or most)
        if lane then
          if any_tried then redis.call('ZREM', DUE, lane) end -- a retry of a higher priority may be due later
          return lane, priority
        end
      else
        put_back()
        more = redis.call('EXISTS', ready_key(priority, account)) == 1
      end
    end
    passed[account] = true
    passed.count = passed.count + 1
    bots_in_turn = nil
    if more then return end
    redis.call('ZREM', BOTS, account)
    in_bots[account] = nil
  end

  local turned -- accounts that had a turn in this call

  function note_turn(account, bot)
    if turned[account] and in_bots[account] then return end
    turned[account], in_bots[account] = true, true
    redis.call('ZADD', BOTS, now, account)
    if bots_in_turn and bots_in_turn[2] then bots_in_turn = nil end -- one alone stays the first
    note_served(bot)
  end

  at_start(function()
    hand, many_served, last_served = { all = {}, bulk = {}, bulk_of_all = 0 }, nil, {}
    turned, taken = {}, {}
  end)
end
