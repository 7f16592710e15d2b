-- Who may listen: an account to its own topic and to the topics of its traders.
-- In a file of its own, since hosted Supabase treats policies on realtime.messages apart.
-- Must never break: the policies see only the topic and the claims; no client may send here.

create policy members_hear_own_account on realtime.messages
for select to authenticated
using (
  extension = 'broadcast'
  and (select private.has_scope('signals:read'))
  and (select realtime.topic()) = 'account:' || (select auth.uid()) || ':signals'
);

create policy members_hear_own_traders on realtime.messages
for select to authenticated
using (
  extension = 'broadcast'
  and (select realtime.topic()) like 'trader:%:signals'
  and exists (
    select from private.traders as trader
    where trader.account_no = (select private.caller_account_no('signals:read'))
      and trader.own_channel
      and (select realtime.topic()) = 'trader:' || trader.trader_id || ':signals'
  )
);
