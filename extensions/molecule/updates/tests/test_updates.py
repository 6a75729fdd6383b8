"""Which updates are installed by themselves, seen with an archive of our own that claims to be the security archive."""

from testinfra.host import Host

_ARCHIVE = r"""
set -e
folder=/srv/security; rm -rf $folder; mkdir -p $folder; cd $folder
for name in switchyard-probe docker-probe; do
  for version in 1 2; do
    mkdir -p build/DEBIAN
    printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: T <t@example.com>\nDescription: probe\n' \
      $name $version > build/DEBIAN/control
    dpkg-deb --build --root-owner-group build ${name}_$version.deb > /dev/null
  done
  dpkg -i ${name}_1.deb > /dev/null
  dpkg-deb --field ${name}_2.deb >> Packages
  printf 'Filename: ./%s_2.deb\nSize: %s\nSHA256: %s\n\n' $name $(stat -c %s ${name}_2.deb) \
    $(sha256sum ${name}_2.deb | cut -d' ' -f1) >> Packages
done
codename=$(. /etc/os-release; echo $VERSION_CODENAME)-security
printf 'Origin: Debian\nLabel: Debian-Security\nSuite: stable-security\nCodename: %s\n' $codename > Release
printf 'Date: %s\nSHA256:\n %s %s Packages\n' \
  "$(date -Ru)" $(sha256sum Packages | cut -d' ' -f1) $(stat -c %s Packages) >> Release
echo "deb [trusted=yes] file:$folder ./" > probe.list
mkdir -p lists/partial && chmod -R a+rX $folder
# What the role placed holds; only the lists of packages are our own, which is quick.
printf 'Dir::Etc::sourcelist "%s/probe.list"; Dir::Etc::sourceparts "-"; Dir::State::lists "%s/lists";\n' \
  $folder $folder > apt.conf
printf 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n' >> apt.conf
APT_CONFIG=$folder/apt.conf apt-get -qq update
"""


def version(host: Host, name: str) -> str:
    return str(host.check_output(f"dpkg-query -W -f '${{Version}}' {name}"))


def test_security_updates_are_installed_and_dockers_wait_for_a_person(host: Host) -> None:
    with host.sudo():
        host.check_output(_ARCHIVE)
        assert (version(host, "switchyard-probe"), version(host, "docker-probe")) == ("1", "1")
        host.check_output("APT_CONFIG=/srv/security/apt.conf unattended-upgrade")
        assert (version(host, "switchyard-probe"), version(host, "docker-probe")) == ("2", "1")
        host.check_output("dpkg --purge switchyard-probe docker-probe && rm -r /srv/security")


def test_they_are_looked_for_every_day(host: Host) -> None:
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.service(timer).is_running
        assert host.service(timer).is_enabled
    shown = host.check_output("apt-config dump APT::Periodic")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in shown
