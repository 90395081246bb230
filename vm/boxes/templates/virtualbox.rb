# Comes with the box: what every machine made of it needs.
Vagrant.configure("2") do |config|
  config.ssh.username = "root"
  # Without this Vagrant asks the machine a dozen questions, a login each.
  config.vm.guest = :linux
  # The machine has no guest additions; a project that wants its folder in it says so (type "rsync").
  config.vm.synced_folder ".", "/vagrant", disabled: true
  config.vm.base_mac = "$mac"
  config.vm.provider :virtualbox do |virtualbox|
    virtualbox.check_guest_additions = false
    virtualbox.functional_vboxsf = false
    virtualbox.default_nic_type = "virtio"
  end
end
