# Comes with the box: what every machine made of it needs.
Vagrant.configure("2") do |config|
  config.ssh.username = "root"
  # Without this Vagrant asks the machine a dozen questions, a login each.
  config.vm.guest = :linux
  # The kernels have no 9p; a project that wants its folder in the machine says so (type "rsync").
  config.vm.synced_folder ".", "/vagrant", disabled: true
  config.vm.provider :libvirt do |libvirt|
    libvirt.machine_type = "q35"
    libvirt.disk_bus = "virtio"
    libvirt.nic_model_type = "virtio"
    libvirt.graphics_type = "none"
    libvirt.video_type = "none"
    libvirt.random model: "random"
  end
end
