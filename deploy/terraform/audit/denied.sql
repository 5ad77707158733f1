-- Who was denied, and did revocation work?
SELECT called, found, call, outcome, who, source, eventid
FROM audit
WHERE outcome <> 'ok' OR call IN ('kms:DisableKey', 'kms:EnableKey', 'kms:ScheduleKeyDeletion', 'kms:CancelKeyDeletion', 'kms:PutKeyPolicy', 'kms:RevokeGrant', 'kms:RetireGrant')
ORDER BY called, call, eventid
