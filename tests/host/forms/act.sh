#!/bin/sh
# What the rules of rules.yaml are judged on, in one container of Debian's essential programs.
mkdir -p /srv/data/Deep.d /opt/act; cd /srv/data || exit
cp /bin/true /opt/act/Tool-X
FORM=one FORM_TWO='a b' /opt/act/Tool-X alpha 'beta gamma' --delta=1 -v -o out.txt
cd /srv || exit; PATH=/opt/act:$PATH Tool-X relative; cd / || exit
cp /bin/bash /opt/act/outer; cp /bin/bash /opt/act/inner
/opt/act/outer -c '/opt/act/inner -c "/opt/act/Tool-X deep; true"; true'
cp /bin/true /opt/act/a-very-long-program-name; /opt/act/a-very-long-program-name
# files
echo text > /srv/data/File.TXT; head -c1 /srv/data/File.TXT; echo more >> /srv/data/File.TXT
# by a program that has not opened it before: what is known is told again only once the kernel was asked to
(cd /srv/data/Deep.d && tail -c1 ../File.TXT)
cp /srv/data/File.TXT "/srv/data/with blank"; tail -c1 "/srv/data/with blank"
mv /srv/data/File.TXT /srv/data/moved; ln -s /srv/data/moved /srv/data/soft; ln /srv/data/moved /srv/data/hard
chmod 6755 /srv/data/moved; chmod 600 /srv/data/hard; mkdir /srv/data/made; rmdir /srv/data/made; rm /srv/data/hard
cat /srv/data/none 2>/dev/null
# the network: a listener on the container's own address, and a connection to it
perl -MIO::Socket::INET -e '
    $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "0.0.0.0:47200", ReuseAddr => 1) or die;
    alarm 60; $s->accept' &
until bash -c "< /dev/tcp/$(hostname -i)/47200"; do sleep 0.1; done
wait
perl -MIO::Socket::INET -e '
    $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => $ARGV[0], PeerPort => 47201); print $s "x"' "$(hostname -i)"
perl -e 'syscall(@socket@, 17, 3, 0)'
perl -e 'syscall(@ptrace@, 0, 0, 0, 0)'
# another user
setpriv --reuid 1234 --regid 1235 --clear-groups /opt/act/Tool-X as-user
# more than once: a user's name is told where its list was read within ten milliseconds
for _ in 1 2 3 4 5 6; do setpriv --reuid nobody --clear-groups sleep 0.9; done
